"""hwprof.reports"""
