# One close, and once only: send it again with the same id, and it is a duplicate.
curl --fail-with-body --silent --show-error --retry 5 --retry-connrefused "$URL" \
    --header 'Content-Type: application/json' \
    --data '{"id": "0b7e8a52-6a5e-4b54-9d0c-6f1d2f3a9c11", "code": 1009, "initiator": "server", "duration": 12.5,
             "message_size": 2097152, "direction": "client_to_server"}'
