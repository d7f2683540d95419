"""moto's S3 server, one request at a time: by itself, two simultaneous conditional writes may both succeed.

    python3 s3_server.py PORT
"""

import sys
import threading

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

answer, turn = DomainDispatcherApplication(create_backend_app), threading.Lock()


def one_at_a_time(environ, start_response):
    with turn:
        return list(answer(environ, start_response))


run_simple("127.0.0.1", int(sys.argv[1]), one_at_a_time, threaded=True)
