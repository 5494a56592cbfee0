"""A crowd: websockets that subscribe to everything and never read, and connections that say half a request.

Prints "ready" once all have come, and stays until its input ends.
"""

import base64
import os
import socket
import struct
import sys

host, port, token, count = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
HEAD = (
    "GET /sysadm HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: %s\r\nAuthorization: Bearer %s\r\n\r\n"
)
# A long id comes back with each answer: 200 of them are more than the buffers between hold.
SUBSCRIBE = b'{"namespace":"events","name":"subscribe","id":"%s","args":["dispatcher","system-state"]}' % (b"x" * 1000)


def masked(text):
    """A text frame of a client; the mask is zero."""
    return struct.pack("!BBH4x", 0x81, 0x80 | 126, len(text)) + text


held = []
for _ in range(count):
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    client.connect((host, port))
    key = base64.b64encode(os.urandom(16)).decode()
    client.sendall((HEAD % (host, key, token)).encode())
    client.settimeout(0.2)
    try:
        client.sendall(masked(SUBSCRIBE) * 200)
    except TimeoutError:
        pass  # the server reads no more from who does not read: as it should
    held.append(client)
    half = socket.create_connection((host, port))
    half.sendall(b"GET /v1/status HTTP/1.1\r\nHost: ")
    held.append(half)
print("ready", flush=True)
sys.stdin.read()
