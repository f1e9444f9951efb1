"""A program named ``adb`` that plays a phone: ``adb -s SERIAL shell|push|reboot ...``.

Its state lies in the folder FAKE_PHONE: ``mood`` says what is wrong (``unplugged``,
``unauthorized``, ``full``, ``reboot``), ``boot_id`` counts starts, ``calls`` logs what was asked.
The wording of the complaints is that of adb 29 (Debian's) and of Android's shell.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

SERIAL = "PHONE123"
ROOT = "/data/local/tmp"


def main() -> int:
    phone = Path(os.environ["FAKE_PHONE"])
    with open(phone / "calls", "a") as log:
        log.write("\t".join(sys.argv[1:]) + "\n")
    if sys.argv[1:3] != ["-s", SERIAL]:
        return fail(f"error: device '{sys.argv[2]}' not found")
    mood = (phone / "mood").read_text() if (phone / "mood").exists() else ""
    if mood == "unplugged":
        return fail(f"error: device '{SERIAL}' not found")
    if mood == "unauthorized":
        return fail(
            "error: device unauthorized.\n"
            "This adb server's $ADB_VENDOR_KEYS is not set\n"
            "Try 'adb kill-server' if that seems wrong.\n"
            "Otherwise check for a confirmation dialog on your device."
        )
    verb, arguments = sys.argv[3], sys.argv[4:]
    if verb == "push":
        return push(phone, mood, *arguments)
    if verb == "reboot":
        return 0
    if verb == "shell" and arguments[0] == "-T":
        # On the phone a shell gets the one line; its paths are those of the phone.
        line = arguments[1].replace(ROOT, str(phone / "tmp"))
        os.environ["PATH"] = f"{phone / 'bin'}:{os.environ['PATH']}"
        os.chdir(phone)
        os.execvp("sh", ["sh", "-c", line])
    return fail(f"adb: unknown command {verb}")


def push(phone: Path, mood: str, source: str, target: str) -> int:
    place = target.replace(ROOT, str(phone / "tmp"))
    if mood == "full":
        return fail(
            f"adb: error: failed to copy '{source}' to '{target}': remote couldn't create file: "
            "No space left on device"
        )
    shutil.copyfile(source, place)
    print(f"{source}: 1 file pushed, 0 skipped.")
    return 0


def fail(text: str) -> int:
    print(text, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
