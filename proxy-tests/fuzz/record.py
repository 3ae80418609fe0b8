"""Records what a driver sends, as seeds for the fuzz targets.

    python3 record.py UPSTREAM_PORT NAME -- COMMAND [ARGUMENT...]

Listens on a free port of the loopback interface, passes everything on to a server on UPSTREAM_PORT,
and runs the command with `{port}` in its arguments replaced by its own port. Each message to the
server goes into `corpus/` by its kind; one of each command is enough, and the first of each
connection is a hello. Look at what is new before it is committed: it names the machine's system.
"""

import pathlib
import socket
import struct
import subprocess
import sys
import threading

CORPUS = pathlib.Path(__file__).parent / "corpus"
KINDS = {2004: "op_query", 2012: "op_compressed", 2013: "op_msg"}
SEED_BYTES_MAX = 4096
seen = set()
lock = threading.Lock()


def keep(target, label, data):
    with lock:
        if (target, label) in seen or len(data) > SEED_BYTES_MAX:
            return
        seen.add((target, label))
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{NAME}-{label}").write_bytes(data)


def command_of(kind, body):
    """A name for the file: the first key after the first document's length."""
    if kind == 2012:
        return f"compressor-{body[8]}"
    if kind == 2004:
        start = body.index(b"\0", 4) + 1 + 8
    elif body[4] == 0:
        start = 5
    else:
        return "sequence-first"
    key = body[start + 5 : body.index(b"\0", start + 5)].decode()
    flags = struct.unpack("<I", body[:4])[0]
    return key if kind == 2004 or flags == 0 else f"{key}-flags-{flags:x}"


def take(source, count):
    data = b""
    while len(data) < count:
        more = source.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def requests(client, server):
    first = True
    try:
        while True:
            head = take(client, 16)
            length, _, _, kind = struct.unpack("<iiii", head)
            body = take(client, length - 16)
            label = command_of(kind, body)
            if first:
                keep("hello", label, head + body)
            keep(KINDS[kind], label, body)
            if kind == 2013:
                keep("skim", label, body)
                keep("header", label, head + body)
            first = False
            server.sendall(head + body)
    except (EOFError, OSError):
        server.close()


def replies(server, client):
    try:
        while data := server.recv(65536):
            client.sendall(data)
    except OSError:
        pass
    client.close()


def accept(listener, port):
    while True:
        client, _ = listener.accept()
        server = socket.create_connection(("127.0.0.1", port))
        for work, pair in ((requests, (client, server)), (replies, (server, client))):
            threading.Thread(target=work, args=pair, daemon=True).start()


def main():
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    upstream = int(sys.argv[1])
    threading.Thread(target=accept, args=(listener, upstream), daemon=True).start()
    command = [part.replace("{port}", str(port)) for part in sys.argv[4:]]
    sys.exit(subprocess.run(command).returncode)


NAME = sys.argv[2]
main()
