#!/usr/bin/env python3
"""A client of the fleet in plain Python: publishes rides, follows a batch, requests a score.

    pip install pika jsonschema
    client.py publish rides.json --follow       publish a file and wait until its dataset is ready
    client.py publish --rides 500               publish generated rides
    client.py follow BATCH                      wait for a batch that was published elsewhere
    client.py score --distance 30 --healthpoints 295 --magicpoints 301 --tmin 111 --tmax 156 --prcp 0

Every message is validated against the schemas in schemas/. Results are printed as JSON, one document per line;
progress and errors go to standard error.

Exit codes: 0 success; 1 the broker or the fleet refused; 2 wrong arguments; 3 a document violates its schema;
4 the broker cannot be reached; 5 no answer in time.
"""

import argparse
import hashlib
import json
import random
import sys
import time
import uuid
from pathlib import Path

import pika
from jsonschema import Draft202012Validator

REFUSED, INVALID_DOCUMENT, NO_BROKER, NO_ANSWER = 1, 3, 4, 5
SCHEMAS = Path(__file__).resolve().parents[3] / "schemas"
MESSAGE_BYTES_MAX = 16 * 1024 * 1024
FEATURES = ["distance", "healthpoints", "magicpoints", "tmin", "tmax", "tavg", "prcp"]


def main():
    args = arguments()
    try:
        # The heartbeat is off because this client may sit in one blocking call for as long as --timeout says.
        parameters = pika.URLParameters(args.url)
        parameters.heartbeat = 0
        with pika.BlockingConnection(parameters) as connection:
            args.run(Fleet(connection, args.namespace), args)
    except (pika.exceptions.AMQPConnectionError, OSError) as error:
        fail(NO_BROKER, f"no connection to the broker: {error!r}")


class Fleet:
    """The exchanges of a fleet."""

    def __init__(self, connection, namespace):
        self.namespace = namespace
        self.channel = connection.channel()
        # basic_publish now waits for the broker's confirm and raises without one.
        self.channel.confirm_delivery()

    def publish(self, exchange, kind, document, **properties):
        """Publishes a document and waits for the broker's confirm."""
        check(kind, document)
        body = encode(document)
        if len(body) > MESSAGE_BYTES_MAX:
            fail(REFUSED, f"{len(body)} bytes are too many for a message: upload the rides and publish a reference")
        try:
            self.channel.basic_publish(
                exchange=self.namespace + exchange,
                routing_key=kind,
                body=body,
                mandatory=True,
                properties=pika.BasicProperties(
                    type=kind, content_type="application/json", app_id="client.py/1", **properties
                ),
            )
        except pika.exceptions.UnroutableError:
            fail(REFUSED, f"no queue takes {kind}: was the fleet's topology applied?")
        except pika.exceptions.NackError:
            fail(REFUSED, "the broker refused the message: the queue is full, try again later")
        except pika.exceptions.ChannelClosedByBroker as error:
            fail(REFUSED, f"the broker closed the channel: {error.reply_text}")

    def temporary_queue(self):
        """Declares a queue that ends with the connection."""
        return self.channel.queue_declare(queue="", exclusive=True).method.queue

    def deliveries(self, queue, timeout_s):
        """Yields the messages of a queue until the timeout."""
        ends = time.monotonic() + timeout_s
        while (left := ends - time.monotonic()) > 0:
            method, properties, body = next(self.channel.consume(queue, auto_ack=True, inactivity_timeout=left))
            if method is not None:
                yield properties, body


def publish(fleet, args):
    batch = read_batch(args.file) if args.file else {"rides": [random_ride() for _ in range(args.rides)]}
    if args.batch_id:
        batch["batch_id"] = args.batch_id
    # Without an id, the fleet derives the same one from the bytes of the message.
    batch_id = batch.get("batch_id") or hashlib.sha256(encode(batch)).hexdigest()[:16]
    # Listens before publishing, so that the announcement is not missed.
    queue = listen(fleet) if args.follow else None
    fleet.publish("ingest", "ride-batch.v1", batch, delivery_mode=2, message_id=f"{batch_id}/ride-batch")
    print(json.dumps({"batch_id": batch_id, "published": True}), flush=True)
    if args.follow:
        wait(fleet, queue, batch_id, args.timeout)


def follow(fleet, args):
    wait(fleet, listen(fleet), args.batch, args.timeout)


def listen(fleet):
    queue = fleet.temporary_queue()
    fleet.channel.queue_bind(queue, exchange=fleet.namespace + "events", routing_key="dataset-ready.v1")
    return queue


def wait(fleet, queue, batch_id, timeout_s):
    print(f"waiting for batch {batch_id}", file=sys.stderr)
    for _, body in fleet.deliveries(queue, timeout_s):
        ready = decode("dataset-ready.v1", body)
        if ready["batch_id"] == batch_id:
            print(json.dumps(ready))
            return
    fail(NO_ANSWER, f"batch {batch_id} was not ready within {timeout_s} s; see the queues that end in .dead")


def score(fleet, args):
    if args.request:
        request = json.loads(args.request.read_text())
    else:
        ride = {name: getattr(args, name) for name in FEATURES if getattr(args, name) is not None}
        units = {"temperature": args.temperature, "precipitation": args.precipitation}
        request = {"request_id": str(uuid.uuid4()), "units": units, "rides": [ride]}
    reply_to = fleet.temporary_queue()
    correlation_id = str(uuid.uuid4())
    fleet.publish(
        "rpc",
        "score-request.v1",
        request,
        delivery_mode=1,
        reply_to=reply_to,
        correlation_id=correlation_id,
        expiration=str(int(args.timeout * 1000)),
    )
    for properties, body in fleet.deliveries(reply_to, args.timeout):
        if properties.correlation_id == correlation_id:
            response = decode("score-response.v1", body)
            print(json.dumps(response))
            if "error" in response or any("error" in ride for ride in response["scores"]):
                fail(REFUSED, "not every ride has a score; the answer says why")
            return
    fail(NO_ANSWER, f"no answer within {args.timeout} s: is a scorer running?")


def read_batch(path):
    """Reads a ride-batch.v1; wraps a bare array or the workshop's document into one."""
    document = json.loads(path.read_text())
    if isinstance(document, list):
        return {"source": path.name, "rides": document}
    if "travel_data" in document:
        return {"source": path.name, "rides": document["travel_data"]}
    return document


def random_ride():
    distance = random.uniform(29, 31)
    return {
        "name": random.choice(["Twilight", "Luna", "Shadowfax", "Bucephalus"]),
        "statustime": f"2018-{random.randint(1, 12):02}-{random.randint(1, 28):02} {random.randint(0, 23):02}:00:00",
        "latitude": random.uniform(40.6, 40.8),
        "longitude": random.uniform(-74.1, -73.8),
        "distance": distance,
        "healthpoints": random.randint(290, 309),
        "magicpoints": int(distance * 10),
        "fieldservice": random.randint(0, 1),
    }


def encode(document):
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


def decode(kind, body):
    document = json.loads(body)
    check(kind, document)
    return document


def check(kind, document):
    """Exits with the first violation of the schema and its path."""
    schema = json.loads((SCHEMAS / f"{kind}.json").read_text())
    violation = next(Draft202012Validator(schema).iter_errors(document), None)
    if violation is not None:
        fail(INVALID_DOCUMENT, f"{kind} at {violation.json_path}: {violation.message[:200]}")


def fail(code, why):
    print(why, file=sys.stderr)
    sys.exit(code)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="amqp://guest:guest@localhost:5672/%2F", help="broker (default: %(default)s)")
    parser.add_argument("--namespace", default="", help="prefix of the names of the fleet's exchanges")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("publish", help="publish a batch of rides")
    rides = command.add_mutually_exclusive_group(required=True)
    rides.add_argument("file", nargs="?", type=existing, metavar="FILE", help="ride-batch.v1, array or travel_data")
    rides.add_argument("--rides", type=int, metavar="N", help="publish N generated rides")
    command.add_argument("--batch-id", help="batch id (default: derived from the bytes)")
    command.add_argument("--follow", action="store_true", help="wait until the dataset is ready")
    command.add_argument("--timeout", type=float, default=600, metavar="S", help="of --follow (default: %(default)s s)")
    command.set_defaults(run=publish)

    command = commands.add_parser("follow", help="wait until the dataset of a batch is ready")
    command.add_argument("batch", metavar="BATCH")
    command.add_argument("--timeout", type=float, default=600, metavar="S", help="(default: %(default)s s)")
    command.set_defaults(run=follow)

    command = commands.add_parser("score", help="request the probability that a ride ends in a service request")
    command.add_argument("--request", type=existing, metavar="FILE", help="a complete score-request.v1")
    for name in FEATURES:
        command.add_argument(f"--{name}", type=float, metavar="X")
    command.add_argument("--temperature", default="celsius_tenths", help="unit of tmin, tmax, tavg (default: %(default)s)")
    command.add_argument("--precipitation", default="millimetre_tenths", help="unit of prcp (default: %(default)s)")
    command.add_argument("--timeout", type=float, default=10, metavar="S", help="(default: %(default)s s)")
    command.set_defaults(run=score)
    return parser.parse_args()


def existing(path):
    path = Path(path)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {path}")
    return path


if __name__ == "__main__":
    main()
