import { once } from "node:events";
import { connect, type Socket } from "node:net";

/**
 * Opens connections that send nothing, in the order in which the server accepts them. They close when the result is
 * disposed.
 */
export async function silentConnections(address: string | undefined, count: number) {
  const { hostname, port } = new URL(`http://${address}`);
  const sockets: Socket[] = [];
  for (let opened = 0; opened < count; opened += 1) {
    const socket = connect(Number(port), hostname);
    sockets.push(socket);
    // The tests expect the server to cut them.
    socket.on("error", () => {});
    await once(socket, "connect");
    // Node detects the end of a connection only while it reads.
    socket.resume();
  }
  return {
    sockets,
    [Symbol.dispose]: () => {
      for (const socket of sockets) socket.destroy();
    },
  };
}
