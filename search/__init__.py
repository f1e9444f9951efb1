"""hwprof.search"""
