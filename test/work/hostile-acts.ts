/** Invalid answers of a server, for tests of how clients treat them. */

import { gzipSync } from "node:zlib";
import type { Act } from "./strict-server.ts";

const JSON_HEAD = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";

/** Writes to the raw socket, bypassing the HTTP server. */
const bare =
  (text: string, then?: "reset"): Act =>
  (_response, _seen, socket) => {
    socket.write(text, () => {
      if (then) socket.resetAndDestroy();
    });
  };

/** Writes the same bytes repeatedly, as fast as the other side reads, until it disconnects. */
export const endless =
  (head: string, piece: Buffer | string): Act =>
  (_response, _seen, socket) => {
    socket.write(head);
    const more = () => {
      while (!socket.destroyed && socket.write(piece));
    };
    socket.on("drain", more);
    more();
  };

/** Writes one byte every `everyMs`. */
const slow =
  (head: string, byte: string, everyMs: number): Act =>
  (_response, _seen, socket) => {
    socket.write(head);
    const timer = setInterval(() => socket.write(byte), everyMs);
    socket.on("close", () => clearInterval(timer));
  };

const reply = (status: number, headers: Record<string, string>, body: string | Buffer): Act => {
  return (response) => void response.writeHead(status, headers).end(body);
};

/** Ten thousand chunks of one byte each: one byte of the body takes 6 bytes on the wire. */
export const BYTE_CHUNKS = Buffer.from("1\r\n \r\n".repeat(10_000));
export const CHUNKED = `${JSON_HEAD}Transfer-Encoding: chunked\r\n\r\n`;

const MEGABYTES_100 = 100_000_000;

/**
 * The invalid answers that a server or proxy may send instead of `body`, a valid answer.
 * @param elsewhere the target of redirects
 */
export function hostileActs(body: unknown, elsewhere: string): Record<string, Act> {
  const text = JSON.stringify(body);
  const json = { "content-type": "application/json" };
  const redirect = (status: number, location: string) => reply(status, { ...json, location }, text);
  return {
    "a web page with status 200": reply(200, { "content-type": "text/html" }, "<!doctype html><title>Sign in</title>"),
    "a web page that says it is JSON": reply(200, json, "<html></html>"),
    "an empty page of spaces": reply(200, json, "   "),
    "JSON that breaks off": reply(200, json, text.slice(0, -1)),
    "two answers in one": reply(200, json, `${text}${text}`),
    "no UTF-8": reply(200, json, Buffer.concat([Buffer.from('"'), Buffer.from([0xff, 0xfe]), Buffer.from('"')])),
    "brackets a million deep": reply(200, json, "[".repeat(1_000_000)),
    "a number without end": reply(200, json, "9".repeat(1_000_000)),
    "a body shorter than it says": bare(`${JSON_HEAD}Content-Length: ${text.length + 10}\r\n\r\n${text}`, "reset"),
    "a chunk that breaks off": bare(`${CHUNKED}ff\r\n${text}`, "reset"),
    "a chunk of no size": bare(`${CHUNKED}zz\r\n${text}\r\n`),
    "a reset before any answer": bare("", "reset"),
    "a reset within the head": bare("HTTP/1.1 200 OK\r\nContent-", "reset"),
    "what is no HTTP": bare("SSH-2.0-OpenSSH_9.6\r\n"),
    "a head without end": endless(JSON_HEAD, `x-more: ${"y".repeat(1_000)}\r\n`),
    "a body without end": endless(CHUNKED, `400\r\n${" ".repeat(1_024)}\r\n`),
    "a body without end, a byte a chunk": endless(CHUNKED, BYTE_CHUNKS),
    "a body of 100 MB": endless(`${JSON_HEAD}Content-Length: ${MEGABYTES_100}\r\n\r\n`, Buffer.alloc(100_000, " ")),
    "a body at a byte now and then": slow(`${JSON_HEAD}Content-Length: 100\r\n\r\n`, " ", 20),
    "a head at a byte now and then": slow("HTTP/1.1 200 OK\r\nx: ", "y", 20),
    "informational answers without end": endless("", "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"),
    "a switch of protocols": bare("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"),
    "compressed, though it was not asked for": reply(200, { ...json, "content-encoding": "gzip" }, gzipSync(text)),
    "a bomb, 20 MB in 20 kB": reply(200, { ...json, "content-encoding": "gzip" }, gzipSync(Buffer.alloc(20_000_000))),
    "a redirect elsewhere": redirect(302, `${elsewhere}/v1/keys`),
    "a redirect that keeps the method": redirect(307, `${elsewhere}/v1/keys`),
    "a permanent redirect to an inner address": redirect(308, "http://169.254.169.254/latest/meta-data"),
    "a redirect to a file": redirect(301, "file:///etc/passwd"),
    "not modified": reply(304, {}, ""),
    "a choice": redirect(300, elsewhere),
    "I am a teapot": reply(418, json, text),
    "unavailable for legal reasons": reply(451, { "content-type": "text/plain" }, text),
    "a request for payment": reply(402, json, text),
    "a status of no class": bare(`HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n`),
  };
}
