import { expect, test } from "vitest";
import { isOwnHost } from "../../src/console/viewers.ts";

test.each([
  "localhost",
  "localhost:8082",
  "LOCALHOST:8082",
  "127.0.0.1",
  "127.0.0.1:8082",
  "10.1.2.3:80",
  "[::1]",
  "[::1]:8082",
])("%s is this server", (host) => {
  expect(isOwnHost(host)).toBe(true);
});

test.each([
  "rebound.example",
  "rebound.example:8082",
  "localhost.rebound.example",
  "127.0.0.1.rebound.example",
  "a-localhost",
  "[rebound.example]",
  "[127.0.0.1]",
  "",
  undefined,
])("%s is refused, because its name may be another site's", (host) => {
  expect(isOwnHost(host)).toBe(false);
});
