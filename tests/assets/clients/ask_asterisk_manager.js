// asterisk-manager, as its README has it: a ping, a command, a call without Async, and the events of it.
const [host, port, user, secret] = process.argv.slice(2);
const ami = new (require("asterisk-manager"))(port, host, user, secret, true);
const fail = (why) => { console.error(why); process.exit(1); };
setTimeout(() => fail("nothing within 40 s"), 40000);
const events = new Set();
ami.keepConnected();
ami.on("managerevent", (event) => {
  events.add(event.event);
  if (event.event === "Hangup" && events.has("called")) { console.log("asterisk-manager: ok"); process.exit(0); }
});
ami.action({ action: "ping" }, (error, answer) => {
  if (error || answer.ping !== "Pong") fail(error || answer);
  ami.action({ action: "command", command: "core show version" }, (error, answer) => {
    if (error || !String(answer.output).includes("Asterisk 22")) fail(error || answer);
    const call = { action: "originate", channel: "Local/hold@default", application: "Wait", data: "1" };
    ami.action(call, (error, answer) => {
      if (error || answer.response !== "Success") fail(error || answer);
      events.add("called");
    });
  });
});
