"""An echo service on a free port, which it prints. On SIGTERM it closes every connection with 1001, and ends."""

import asyncio
import signal

from tests.support.services import service


async def main() -> None:
    async with service() as (server, address):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.close)
        print(address.port, flush=True)
        await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(main())
