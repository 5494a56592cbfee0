"""A client of SysAdm's events, written from the handbook's page alone, with the library `websockets`.

Subscribes, prints every text that comes as a line, and ends after the number of seconds given.
"""

import asyncio
import json
import sys

import websockets


async def main(url, token, seconds):
    async with websockets.connect(url) as socket:
        request = {"namespace": "events", "name": "subscribe", "id": "before", "args": ["dispatcher"]}
        await socket.send(json.dumps(request))
        print(await socket.recv(), flush=True)
        await socket.send("this is no JSON")
        print(await socket.recv(), flush=True)
        auth = {"namespace": "rpc", "name": "auth_token", "id": "auth", "args": {"token": token}}
        await socket.send(json.dumps(auth))
        print(await socket.recv(), flush=True)
        args = ["dispatcher", "life-preserver", "system-state"]
        request = {"namespace": "events", "name": "subscribe", "id": "sampleID", "args": args}
        await socket.send(json.dumps(request))

        async def listen():
            async for text in socket:
                print(text, flush=True)

        try:
            await asyncio.wait_for(listen(), seconds)
        except asyncio.TimeoutError:
            pass
        request = {"namespace": "events", "name": "unsubscribe", "id": "last", "args": "dispatcher"}
        await socket.send(json.dumps(request))
        print(await socket.recv(), flush=True)


asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
