import { once } from "node:events";
import { connect } from "node:net";

/** Sends all requests in one packet. Resolves when the server has closed the connection. */
export async function sendPipelined(address: string | undefined, requests: readonly string[]): Promise<void> {
  const { hostname, port } = new URL(`http://${address}`);
  const socket = connect(Number(port), hostname);
  socket.on("error", () => {});
  const closed = new Promise((resolve) => socket.once("close", resolve));
  await once(socket, "connect");
  socket.write(requests.join(""));
  // Node detects the end of a connection only while it reads, so read and discard the data.
  socket.resume();
  await closed;
}
