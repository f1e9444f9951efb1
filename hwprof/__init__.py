"""hwprof: what every block of a family of networks costs on a device, and which to keep."""
