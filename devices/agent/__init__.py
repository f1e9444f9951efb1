"""What runs next to a device on another machine: copied there as one file, started over the link.

Nothing listens anywhere. A session of ssh or adb starts the agent, and frames go over that
session's standard streams: only who may run commands on the device may speak to it, and when the
link ends the session's processes end.
"""
