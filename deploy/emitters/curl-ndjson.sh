# Many closes, one a line: up to 1,000 in a request.
curl --fail-with-body --silent --show-error --retry 5 --retry-connrefused "$URL" \
    --header 'Content-Type: application/x-ndjson' --data-binary @- <<END
{"id": "b5c1f6a0-1", "code": 1001, "initiator": "client", "duration": 3600}
{"id": "b5c1f6a0-2", "code": 1012, "initiator": "server", "time": $(date +%s)000}
{"id": "b5c1f6a0-3", "code": 4001, "initiator": "server", "reason": "session expired"}
END
