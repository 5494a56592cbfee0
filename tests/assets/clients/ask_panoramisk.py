"""panoramisk, as its documentation has it: a ping, a list, a command, a call, and the events of it."""
import asyncio
import sys

from panoramisk import Manager


async def main(host, port, user, secret):
    manager = Manager(host=host, port=int(port), username=user, secret=secret)
    events = []
    manager.register_event("*", lambda _, event: events.append(event.event))
    await manager.connect()
    assert (await manager.send_action({"Action": "Ping"})).success
    rows = await manager.send_action({"Action": "QueueStatus"}, as_list=True)
    assert any(row.event == "QueueMember" for row in rows), rows
    version = await manager.send_action({"Action": "Command", "Command": "core show version"})
    assert "Asterisk 22" in "".join(version.output), version
    call = {"Action": "Originate", "Channel": "Local/hold@default", "Application": "Wait", "Data": "1", "Async": "true"}
    answers = await manager.send_action(call)
    last = answers[-1] if isinstance(answers, list) else answers
    assert last.success or last.response == "Success", answers
    for _ in range(100):
        if "Hangup" in events:
            break
        await asyncio.sleep(0.1)
    assert "Newchannel" in events and "Hangup" in events, events
    manager.close()
    print("panoramisk: ok")


asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), 40))
