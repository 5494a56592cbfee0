"""Asks for Droonga's system.status with the library `fluent-logger`, unmodified; prints the response as JSON.

The response comes to a port of this client, as Droonga's own clients have it.
"""

import json
import socket
import sys

import msgpack
from fluent import sender

host, port, own = sys.argv[1], int(sys.argv[2]), sys.argv[3]
listener = socket.create_server((own, 0))
listener.settimeout(5)
reply_to = "%s:%d/client" % (own, listener.getsockname()[1])
logger = sender.FluentSender("droonga", host=host, port=port)
request = {"id": "request-1", "type": "system.status", "replyTo": reply_to, "dataset": "Default", "body": {}}
assert logger.emit("message", request), logger.last_error
connection, _ = listener.accept()
unpacker = msgpack.Unpacker(raw=False)
responses = []
while True:
    piece = connection.recv(4096)
    if not piece:
        break
    unpacker.feed(piece)
    responses.extend(unpacker)
assert len(responses) == 1, responses
tag, _, record = responses[0]
print(json.dumps({"tag": tag, "record": record}))
logger.close()
