"""The test client on websocket-client, which has no limit for messages."""

import sys
import threading

from websocket import WebSocketApp

from tests.peers.clients.commands import arguments, parsed, say


def obey(connection: WebSocketApp) -> None:
    for line in sys.stdin:
        command, argument = parsed(line)
        if command == "send":
            connection.send(argument)
        elif command == "close" and argument:
            connection.close(status=int(argument))
        elif command == "close":
            connection.close()


def main() -> None:
    chosen = arguments()
    connection = WebSocketApp(
        chosen.url,
        on_open=lambda _: say("open"),
        on_message=lambda _, message: say(f"heard {message}"),
    )
    threading.Thread(target=obey, args=[connection], daemon=True).start()
    if chosen.ping is None:
        connection.run_forever()
    else:
        connection.run_forever(ping_interval=chosen.ping * 2, ping_timeout=chosen.ping)


if __name__ == "__main__":
    main()
