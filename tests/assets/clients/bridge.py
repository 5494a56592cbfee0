"""A client of SysAdm's events that reaches the nodes through a bridge. Prints what comes, with line breaks as |."""

import asyncio
import json
import sys

import websockets


async def main(url, token, node, seconds):
    headers = {"Authorization": "Bearer " + token}
    async with websockets.connect(url, additional_headers=headers) as socket:
        print((await socket.recv()).replace("\n", "|"), flush=True)
        request = {"namespace": "events", "name": "subscribe", "id": "far", "args": "system-state"}
        await socket.send(node + "\n" + json.dumps(request))

        async def listen():
            async for text in socket:
                print(text.replace("\n", "|"), flush=True)

        try:
            await asyncio.wait_for(listen(), seconds)
        except asyncio.TimeoutError:
            pass


asyncio.run(main(*sys.argv[1:4], float(sys.argv[4])))
