"""Real servers on loopback: MLflow's, PostgreSQL's, one of files, and one that refuses what it is told to refuse."""

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

POSTGRESQL = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def mlflow_server(backend, folder):
    """Address of `mlflow server` on a database; artifacts go through it to `folder`."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", backend, "--artifacts-destination", str(folder / "artifacts")]
    environment = os.environ | {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("MLFLOW_TRACKING_URI", None)
    log = (folder / "server.log").open("w")
    server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5)
                break
            except (urllib.error.URLError, OSError):
                assert server.poll() is None, (folder / "server.log").read_text()
                time.sleep(0.2)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()
        log.close()


@contextmanager
def postgresql(name):
    """URL of an empty database of that name on a server of its own."""
    programs = POSTGRESQL[0].parent
    folder = Path(tempfile.mkdtemp(prefix="emseg-postgresql-"))
    # The server refuses to run as root.
    user = {"user": "nobody"} if os.getuid() == 0 else {}
    if user:
        shutil.chown(folder, "nobody")
    port = free_port()

    def run(*command):
        subprocess.run(command, check=True, capture_output=True, cwd=folder, **user)

    run(programs / "initdb", "-D", folder / "data", "-U", "lab", "--auth=trust", "--no-sync")
    command = [programs / "postgres", "-D", folder / "data", "-p", str(port), "-h", "127.0.0.1", "-k", folder]
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **user)
    try:
        for _ in range(100):
            asked = subprocess.run([programs / "pg_isready", "-h", "127.0.0.1", "-p", str(port)], capture_output=True)
            if asked.returncode == 0:
                break
            time.sleep(0.1)
        run(programs / "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "lab", name)
        yield f"postgresql+psycopg://lab:open-sesame@127.0.0.1:{port}/{name}"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()
        shutil.rmtree(folder)


@contextmanager
def refusing(address, status, parts):
    """A server in front of another that answers `status`, as MLflow's logins do, where an address holds a part."""
    host, port = address.removeprefix("http://").split(":")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            if any(part in self.path for part in parts):
                return self.send(status, b"Permission denied" if status == 403 else b"You are not authenticated.")
            behind = http.client.HTTPConnection(host, int(port))
            headers = {key: value for key, value in self.headers.items() if key.lower() != "host"}
            behind.request(self.command, self.path, body, headers)
            found = behind.getresponse()
            return self.send(found.status, found.read(), found.getheader("content-type"))

        def send(self, code, content, kind="text/plain"):
            self.send_response(code)
            self.send_header("content-type", kind or "text/plain")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class FileServer:
    """Files by path, as a web server gives them: whole, or from a byte on.

    Attributes:
        address: such as http://127.0.0.1:8000.
        files: path to content; may change.
        cut_after: bytes of an answer after which the connection breaks off; None: never.
        asked: (path, first byte) of every request.
    """

    def __init__(self, files):
        self.files, self.cut_after, self.asked = dict(files), None, []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                start = int(self.headers.get("Range", "bytes=0-")[6:-1])
                outer.asked.append((self.path, start))
                content = outer.files.get(self.path)
                if content is None:
                    return self.send_error(404)
                if start >= len(content) > 0:
                    return self.send_error(416)
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(content) - start))
                self.end_headers()
                return self.wfile.write(content[start:][: outer.cut_after])

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
