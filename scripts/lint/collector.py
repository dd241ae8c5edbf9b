#!/usr/bin/env python3
"""Runs a collector with deploy/collector/collector.yaml, sends it spans and log lines, and looks at what it sends on.

    scripts/lint/collector.py OTELCOL COLLECTOR.YAML

Only addresses differ from production, and how long it waits for the rest of a trace. `scripts/lint-ops` builds the
collector and calls this.
"""

import http.server
import json
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

# Of each kind; of the fast ones, so many that 5 % of them are a number to go by.
FAILED, SLOW, FAST = 20, 20, 2000
SHARE = 0.05
WAIT = 2
PATIENCE = 30
STATUS_ERROR = 2


def fail(message):
    sys.exit(f"collector: {message}")


class Sink(http.server.BaseHTTPRequestHandler):
    received = {"/v1/traces": [], "/v1/logs": []}

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.received[self.path].append(json.loads(body))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


def free_ports(count):
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def spans(dice):
    """Their trace ids, and the request that has them all: one server span each."""
    now = time.time_ns()
    kinds = {"failed": (FAILED, 10, {"code": STATUS_ERROR}), "slow": (SLOW, 150, {}), "fast": (FAST, 10, {})}
    ids, made = {}, []
    for kind, (count, milliseconds, status) in kinds.items():
        ids[kind] = {f"{dice.getrandbits(128):032x}" for _ in range(count)}
        made += [{
            "traceId": trace, "spanId": f"{dice.getrandbits(64):016x}", "name": "GET /api/v1/requests", "kind": 2,
            "startTimeUnixNano": str(now), "endTimeUnixNano": str(now + milliseconds * 1_000_000), "status": status,
        } for trace in sorted(ids[kind])]
    return ids, {"resourceSpans": [{"scopeSpans": [{"spans": made}]}]}


def packed(value):
    """As MessagePack, as far as Docker's log driver needs it."""
    if isinstance(value, str):
        data = value.encode()
        return b"\xda" + len(data).to_bytes(2, "big") + data
    if isinstance(value, int):
        return b"\xce" + value.to_bytes(4, "big")
    if isinstance(value, list):
        return bytes([0x90 | len(value)]) + b"".join(map(packed, value))
    return bytes([0x80 | len(value)]) + b"".join(packed(part) for pair in value.items() for part in pair)


def line(instance, level, trace):
    """What a replica writes, and what Docker adds."""
    text = json.dumps({"level": level, "message": "request", "trace_id": trace, "span_id": trace[-16:]})
    record = {"log": text, "container_id": "c0ffee", "container_name": f"/{instance}", "source": "stdout",
              "instance": instance}
    return text, packed(["c0ffee", int(time.time()), record])


def eventually(what, holds):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = holds()
        if found:
            return found
        time.sleep(0.1)
    return fail(f"{what}: not within {PATIENCE} s")


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def attributes(holder):
    return {one["key"]: one["value"].get("stringValue") for one in holder.get("attributes", [])}


def check_spans(port, ids, request):
    headers = {"Content-Type": "application/json"}
    url = f"http://127.0.0.1:{port}/v1/traces"
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(request).encode(), headers), timeout=10):
        pass

    def kept():
        return {
            span["traceId"] for body in Sink.received["/v1/traces"] for resource in body["resourceSpans"]
            for scope in resource["scopeSpans"] for span in scope["spans"]
        }

    eventually("the first traces", kept)
    # All are decided about at once; a batch may still be on its way.
    time.sleep(3)
    for kind in ("failed", "slow"):
        if not ids[kind] <= kept():
            fail(f"{len(ids[kind] - kept())} of {len(ids[kind])} traces that were {kind} are lost")
    share = len(ids["fast"] & kept()) / FAST
    if not 0.7 * SHARE < share < 1.3 * SHARE:
        fail(f"{share:.1%} of the other traces are kept instead of {SHARE:.0%}")
    return share


def check_lines(port):
    sent = {}
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for number, (instance, level) in enumerate([("api-1", "error"), ("api-2", "info")], 1):
            text, message = line(instance, level, f"{number:032x}")
            sent[instance] = (text, level, f"{number:032x}")
            connection.sendall(message)

        def got():
            found = {
                attributes(resource["resource"]).get("service.instance.id"): (attributes(resource["resource"]), record)
                for body in Sink.received["/v1/logs"] for resource in body["resourceLogs"]
                for scope in resource["scopeLogs"] for record in scope["logRecords"]
            }
            return found if len(found) == len(sent) else None

        found = eventually("the lines of both replicas", got)
    for instance, (text, level, trace) in sent.items():
        resource, record = found[instance]
        is_now = (resource.get("service.name"), record["body"]["stringValue"], record["severityText"],
                  record.get("traceId"), record.get("spanId"), attributes(record))
        expected = ("switchboard", text, level, trace, trace[-16:], {})
        if is_now != expected:
            fail(f"the line of {instance} is {is_now} instead of {expected}")


def main():
    binary, config = sys.argv[1:]
    grpc, otlp, fluent, health = free_ports(4)
    sink = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=sink.serve_forever, daemon=True).start()
    here = lambda port: {"endpoint": f"127.0.0.1:{port}"}
    exporter = {"endpoint": f"http://127.0.0.1:{sink.server_address[1]}", "encoding": "json", "compression": "none"}
    override = {
        "receivers": {"otlp": {"protocols": {"grpc": here(grpc), "http": here(otlp)}}, "fluent_forward": here(fluent)},
        "processors": {"tail_sampling": {"decision_wait": f"{WAIT}s"}},
        "exporters": {"otlp_http/loki": exporter},
        "extensions": {"health_check": here(health)},
        "service": {
            "pipelines": {"traces": {"exporters": ["otlp_http/loki"]}},
            "telemetry": {"metrics": {"readers": [], "level": "none"}},
        },
    }
    with tempfile.TemporaryDirectory() as directory:
        changes, log = Path(directory) / "override.yaml", Path(directory) / "log"
        changes.write_text(json.dumps(override))
        with log.open("w") as output:
            process = subprocess.Popen(
                [binary, f"--config={config}", f"--config={changes}"], stdin=subprocess.DEVNULL, stdout=output,
                stderr=output,
            )
        try:
            def ready():
                if process.poll() is not None:
                    fail(f"it ends at once: {log.read_text()}")
                return answers(f"http://127.0.0.1:{health}/")

            eventually("the collector", ready)
            ids, request = spans(random.Random(1))
            share = check_spans(otlp, ids, request)
            check_lines(fluent)
        finally:
            process.terminate()
            process.wait(timeout=30)
    print(f"collector: all of {FAILED} failed and {SLOW} slow traces, {share:.1%} of {FAST} others; 2 replicas' lines")


if __name__ == "__main__":
    main()
