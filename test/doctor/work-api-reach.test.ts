import { once } from "node:events";
import { createServer, type RequestListener } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { describe, expect, test } from "vitest";
import { startSimulator } from "../../simulator/simulator.ts";
import type { Environment } from "../../src/api/environment.ts";
import { checkWorkApiReach, reachOnce } from "../../src/doctor/work-api-reach.ts";
import type { WorkAccess } from "../../src/queue/reading-client.ts";
import { selfSigned } from "../../testbed/cluster/certificate.ts";
import { parsed, sessionsSpec, stored } from "../api/environments.ts";
import { freePort } from "../support/free-port.ts";

function at(baseUrl: string, name = "research"): Environment {
  const api = { baseUrl, keySecretRef: { name: "research-key" } };
  const environment = parsed(stored(sessionsSpec({}, { api, network: { policy: "None" } })));
  return { ...environment, metadata: { ...environment.metadata, name } };
}

const access = (over: Partial<WorkAccess> = {}): WorkAccess => ({
  originAllowed: () => true,
  proxy: {},
  ...over,
});

const reached = (baseUrl: string, over: Partial<WorkAccess> = {}) =>
  checkWorkApiReach(at(baseUrl), access(over), reachOnce());

/** A server that is not a Work API, with the requests it received. */
async function serve(answer: RequestListener, tls?: { cert: string; key: string }) {
  const asked: { url: string | undefined; authorization: string | undefined }[] = [];
  const listener: RequestListener = (request, response) => {
    asked.push({ url: request.url, authorization: request.headers.authorization });
    answer(request, response);
  };
  const server = tls ? createTlsServer(tls, listener) : createServer(listener);
  server.on("connect", (request, socket) => {
    asked.push({ url: request.url, authorization: request.headers.authorization });
    socket.end("HTTP/1.1 407 No\r\n\r\n");
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    asked,
    url: `${tls ? "https" : "http"}://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      server.close();
      server.closeAllConnections();
    },
  };
}

const api = (status: number, type: string): RequestListener => {
  return (_, response) => response.writeHead(status).end(JSON.stringify({ type: "error", error: { type } }));
};

describe("checkWorkApiReach", () => {
  test("needs no key: the simulator refuses the request, and detects no protocol violation", async () => {
    const simulator = await startSimulator();
    try {
      expect(await reached(simulator.url)).toEqual({
        check: "work-api-reach",
        about: "environment agents/research",
        status: "pass",
        message: `${simulator.url} answers this machine: 401 to a request without a key, as expected`,
        fix: null,
        reason: null,
      });
      simulator.assertNoViolations();
    } finally {
      await simulator.close();
    }
  });

  test("sends no credential, and one request for all Environments with the same address", async () => {
    await using server = await serve(api(401, "authentication_error"));
    const reach = reachOnce();
    for (const name of ["one", "two"]) {
      const { about, status } = await checkWorkApiReach(at(server.url, name), access(), reach);
      expect({ about, status }).toEqual({ about: `environment agents/${name}`, status: "pass" });
    }
    const url = expect.stringMatching(/^\/v1\/environments\/env_1\/work\/stats$/);
    expect(server.asked).toEqual([{ url, authorization: undefined }]);
  });

  test.each<[string, RequestListener, RegExp, RegExp]>([
    [
      "a login page",
      (_, response) => response.writeHead(401, { "content-type": "text/html" }).end("<html>"),
      /with 401 to a request without a key, a web page$/,
      /whether a proxy or login page answers/,
    ],
    [
      "a service that needs no key",
      (_, response) => response.end("{}"),
      /with 200 .*, not an answer of the Work API$/,
      /^Check spec\.api\.baseUrl/,
    ],
    ["a Work API in trouble", api(529, "overloaded_error"), /with 529 to a request without a key$/, /is reachable/],
  ])("recognizes %s", async (_, answer, message, fix) => {
    await using server = await serve(answer);
    expect(await reached(server.url)).toMatchObject({
      status: "warn",
      message: expect.stringMatching(message),
      fix: expect.stringMatching(fix),
    });
  });

  test("only warns when the API is unreachable, because the operator's Pod may have another route", async () => {
    const url = `http://127.0.0.1:${await freePort()}`;
    expect(await reached(url)).toMatchObject({
      status: "warn",
      message: expect.stringMatching(/^from this machine: .*ECONNREFUSED/),
      fix: expect.stringContaining("run berth doctor in the operator's Pod"),
    });
  });

  test("reports an untrusted certificate and a refusing proxy", async () => {
    const { certificate: cert, key } = selfSigned(["127.0.0.1"]);
    await using tls = await serve(api(401, "authentication_error"), { cert, key });
    expect((await reached(tls.url)).message).toContain("NODE_EXTRA_CA_CERTS");
    expect(tls.asked).toEqual([]);
    await using proxy = await serve((_, response) => response.end());
    const refused = await reached("https://api.example.com", { proxy: { httpsProxy: proxy.url } });
    expect(refused).toMatchObject({ status: "warn", message: expect.stringContaining("HTTPS_PROXY") });
    expect(proxy.asked.map(({ url }) => url)).toEqual(["api.example.com:443"]);
  });

  test("is skipped if no key may be sent there", async () => {
    await using server = await serve(api(401, "authentication_error"));
    expect(await reached(server.url, { originAllowed: () => false })).toMatchObject({
      status: "skip",
      message: `not checked: needs an operator that may send keys to ${server.url} (--allowed-api-origins)`,
    });
    expect(server.asked).toEqual([]);
  });
});
