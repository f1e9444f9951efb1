"""hwprof.devices"""
