#!/bin/sh
# Publishes a batch of rides from a shell, through the HTTP API of RabbitMQ's management plugin.
#
#   publish.sh FILE
#
# FILE is anything that the fleet reads: ride-batch.v1, an array, {"travel_data": […]}, NDJSON, concatenated objects; also
# gzip or zstd. It is sent unchanged. For bulk use AMQP: this API encodes each message and opens a channel for it.
#
#   MANAGEMENT  URL of the API          (default http://guest:guest@localhost:15672)
#   VHOST       URL-encoded             (default %2F)
#   NAMESPACE   prefix of the exchange  (default none)
#
# The API publishes mandatory and waits for the broker's confirm, so `"routed": true` means that a queue has the batch.
# Exit codes: 0 published; 1 no queue takes it, or the queue is full; 2 wrong arguments; 4 the API cannot be reached.
set -eu

if [ $# -ne 1 ] || [ ! -f "$1" ]; then
    echo "usage: publish.sh FILE" >&2
    exit 2
fi
api=${MANAGEMENT:-http://guest:guest@localhost:15672}/api/exchanges/${VHOST:-%2F}/${NAMESPACE:-}ingest/publish

# The same bytes give the same message id, so that publishing again is recognised.
id=$(sha256sum < "$1" | cut -c 1-16)
answer=$(
    {
        printf '{"routing_key": "ride-batch.v1", "payload_encoding": "base64", "properties": {'
        printf '"type": "ride-batch.v1", "content_type": "application/json", "delivery_mode": 2, '
        printf '"message_id": "%s/ride-batch", "app_id": "publish.sh/1"}, "payload": "' "$id"
        base64 < "$1" | tr -d '\n'
        printf '"}'
    } | curl --silent --show-error --header 'content-type: application/json' --data-binary @- "$api"
) || exit 4

case $(printf '%s' "$answer" | tr -d ' ') in
    '{"routed":true}') echo "published, SHA-256 begins with $id" ;;
    *)
        echo "not published: $answer" >&2
        exit 1
        ;;
esac
