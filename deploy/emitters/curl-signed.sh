# Signed as Standard Webhooks asks, with openssl. SECRET is whsec_... as in the file of --webhook.secrets-file.
body='{"id": "0b7e8a52-6a5e-4b54-9d0c-6f1d2f3a9c12", "code": 1011, "initiator": "server"}'
id="msg_$(openssl rand -hex 12)"
timestamp=$(date +%s)
key=$(printf %s "${SECRET#whsec_}" | base64 -d | od -An -v -tx1 | tr -d ' \n')
signature=$(printf %s "$id.$timestamp.$body" | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary | base64)
curl --fail-with-body --silent --show-error "$URL" --header 'Content-Type: application/json' --data "$body" \
    --header "webhook-id: $id" --header "webhook-timestamp: $timestamp" --header "webhook-signature: v1,$signature"
