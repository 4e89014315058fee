import { once } from "node:events";
import { connect, type Socket } from "node:net";

/** Connections of a peer that says nothing, in the order in which the server gets them. They end with what holds them. */
export async function silentConnections(address: string | undefined, count: number) {
  const { hostname, port } = new URL(`http://${address}`);
  const sockets: Socket[] = [];
  for (let opened = 0; opened < count; opened += 1) {
    const socket = connect(Number(port), hostname);
    sockets.push(socket);
    // Being cut off is what they are for.
    socket.on("error", () => {});
    await once(socket, "connect");
    // Node sees the end of a connection only while it reads.
    socket.resume();
  }
  return {
    sockets,
    [Symbol.dispose]: () => {
      for (const socket of sockets) socket.destroy();
    },
  };
}
