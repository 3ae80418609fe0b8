"""moto's S3 on a port of loopback, one request at a time.

moto looks at a condition and writes in two steps, in a thread for each request: on a busy machine
two of eight writers who race for one condition won. A test of a store that keeps conditions needs
one that does.
"""

import sys
import threading

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import run_simple

app = DomainDispatcherApplication(create_backend_app)
turn = threading.Lock()


def one_at_a_time(environ, start_response):
    with turn:
        return list(app(environ, start_response))


run_simple(
    "127.0.0.1",
    int(sys.argv[1]),
    one_at_a_time,
    threaded=True,
    request_handler=MotoRequestHandler,
)
