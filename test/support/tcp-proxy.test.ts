import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server } from "node:net";
import { afterEach, beforeEach, expect, test } from "vitest";
import { TcpProxy } from "./tcp-proxy.ts";

let echo: Server;
let proxy: TcpProxy;

beforeEach(async () => {
  echo = createServer((socket) => {
    socket.on("error", () => {});
    socket.pipe(socket);
  });
  await new Promise<void>((resolve) => echo.listen(0, "127.0.0.1", resolve));
  proxy = await TcpProxy.start(`http://127.0.0.1:${(echo.address() as AddressInfo).port}`);
});

afterEach(async () => {
  await proxy[Symbol.asyncDispose]();
  await new Promise((resolve) => echo.close(resolve));
});

async function open() {
  const socket = connect(proxy.port, "127.0.0.1");
  socket.on("error", () => {});
  await once(socket, "connect");
  return socket;
}

test("forwards both ways", async () => {
  const socket = await open();
  socket.write("hello");
  expect(String((await once(socket, "data"))[0])).toBe("hello");
  expect(proxy.open).toBe(1);
  socket.destroy();
  await proxy.until(() => proxy.open === 0);
});

test("cuts open connections and accepts new ones", async () => {
  const socket = await open();
  await proxy.until(() => proxy.open === 1);
  const closed = new Promise((resolve) => socket.once("close", resolve));
  proxy.cut();
  await closed;
  const next = await open();
  next.write("x");
  await once(next, "data");
  next.destroy();
});

test("stalls a connection until it is forwarded again", async () => {
  const socket = await open();
  await proxy.until(() => proxy.open === 1);
  let heard = "";
  socket.on("data", (chunk) => {
    heard += String(chunk);
  });
  proxy.stall();
  socket.write("late");
  const other = await open();
  await proxy.until(() => proxy.open === 2);
  expect(heard).toBe("");
  proxy.forward();
  await once(socket, "data");
  expect(heard).toBe("late");
  socket.destroy();
  other.destroy();
});

test("keeps a frozen connection silent while it forwards new ones", async () => {
  const socket = await open();
  await proxy.until(() => proxy.open === 1);
  let heard = "";
  socket.on("data", (chunk) => {
    heard += String(chunk);
  });
  proxy.freezeOpen();
  socket.write("never");
  const next = await open();
  next.write("x");
  await once(next, "data");
  expect(heard).toBe("");
  socket.destroy();
  next.destroy();
});

test("refuses new connections until it is told to forward", async () => {
  proxy.refuse();
  const socket = connect(proxy.port, "127.0.0.1");
  const [error] = (await once(socket, "error")) as [NodeJS.ErrnoException];
  expect(error.code).toBe("ECONNRESET");
  expect(proxy.open).toBe(0);
  proxy.forward();
  (await open()).destroy();
});
