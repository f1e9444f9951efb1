"""Devices on other machines: the way there (ssh, adb), and what is sent along it."""
