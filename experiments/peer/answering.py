"""The peer's side of `client.Peer`: one JSON object a line on standard input, one answer a line on standard output."""

import json
import sys
import traceback


def answer(peer):
    """Calls the methods of `peer` that are asked for, until the input ends."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # libraries print
    for line in sys.stdin:
        request = json.loads(line)
        try:
            found = getattr(peer, request.pop("do"))(**request)
        except Exception as error:
            traceback.print_exc()
            found = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(found), file=answers, flush=True)
