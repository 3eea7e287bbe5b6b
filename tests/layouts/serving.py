"""Runs a script of this folder many times, with what it imports imported once: `serving.py SCRIPT`.

Reads the arguments of each run as a line of JSON and answers with its exit code. Each run is a process of its own, forked
after the imports, whose output goes to the file that the line names. The script's own guard at its end is left out, so that
its classes are still those of `__main__`.
"""

import json
import os
import sys
import traceback

GUARD = '\nif __name__ == "__main__":'


def serve(main) -> None:
    for line in sys.stdin:
        said, *argv = json.loads(line)
        child = os.fork()
        if not child:
            run(main, said, argv)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def run(main, said: str, argv: list[str]) -> None:
    out = os.open(said, os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(out, stream)
    sys.argv[1:] = argv
    try:
        main()
    except BaseException:  # noqa: BLE001 - whatever it is, the answer is that it failed
        traceback.print_exc()
        code = 1
    else:
        code = 0
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    script = sys.argv.pop(1)
    sys.argv[0] = script
    with open(script, encoding="utf-8") as file:
        exec(compile(file.read().partition(GUARD)[0], script, "exec"))
    serve(globals()["main"])
