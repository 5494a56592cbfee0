// Asks for Droonga's system.status with the library `@fluent-org/logger`, unmodified, in each of its modes, each acknowledged.
// The responses come to a server of this client, made with the same library; each is printed as a line of JSON.
"use strict";

const {FluentClient, FluentServer} = require("@fluent-org/logger");

async function main(host, port, own) {
  const server = new FluentServer({listenOptions: {host: own, port: 24230}});
  const seen = [];
  server.on("entry", (tag, time, record) => {
    seen.push(record.inReplyTo);
    console.log(JSON.stringify({tag, record}));
  });
  await server.listen();
  for (const eventMode of ["Message", "Forward", "PackedForward"]) {
    const client = new FluentClient("droonga", {
      eventMode,
      ack: {ackTimeout: 3000},
      socket: {host, port: Number(port), timeout: 3000},
    });
    const record = {id: eventMode, type: "system.status", replyTo: `${own}:24230/client`, body: {}};
    await client.emit("message", record);
    await client.flush();
    await client.shutdown();
  }
  for (let waited = 0; seen.length < 3 && waited < 50; waited += 1) {
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  await server.close();
  console.log(JSON.stringify({seen}));
}

main(...process.argv.slice(2)).then(
  () => process.exit(0),
  (error) => { console.error(error); process.exit(1); },
);
