import { describe, expect, test } from "vitest";
import { type AllowedOrigins, isListedHost, mayBeInner, originAllowed } from "../../src/settings/allowed-origins.ts";

describe("allowed API origins", () => {
  test.each<[AllowedOrigins, string, boolean]>([
    ["any-https", "https://api.anthropic.com", true],
    ["any-https", "https://proxy.example:8443/anthropic", true],
    ["any-https", "http://127.0.0.1:8765", false],
    ["any-https", "not a url", false],
    ["any-https", "https://10.0.0.1", false],
    ["any-https", "https://0x7f000001:6443", false],
    ["any-https", "https://[fd00:ec2::254]", false],
    ["any-https", "https://kubernetes.default.svc", false],
    [["https://10.0.0.1"], "https://10.0.0.1", true],
    [["http://127.0.0.1:8765"], "http://127.0.0.1:8765/", true],
    [["http://127.0.0.1:8765"], "http://127.0.0.1:8766", false],
    [["http://127.0.0.1:8765"], "https://api.anthropic.com", false],
    [["https://a.example"], "https://a.example:443/v1", true],
    [["https://a.example"], "https://a.example.evil.example", false],
    [["https://a.example"], "https://user@a.example", true],
  ])("%j allows %s: %s", (allowed, baseUrl, expected) => {
    expect(originAllowed(allowed, baseUrl)).toBe(expected);
  });

  test.each<[AllowedOrigins, string, boolean]>([
    ["any-https", "https://api.anthropic.com", false],
    ["any-https", "https://10.0.0.1", false],
    [
      ["https://api.anthropic.com", "http://berth-simulator.agents.svc:8080"],
      "http://berth-simulator.agents.svc:8080",
      true,
    ],
    [["https://api.anthropic.com"], "https://api.example.com", false],
  ])("%j allows an inner address for %s: %s", (allowed, origin, expected) => {
    expect(mayBeInner(allowed, origin)).toBe(expected);
  });

  test.each<[AllowedOrigins, string, boolean]>([
    ["any-https", "api.anthropic.com", true],
    ["any-https", "gateway.example", false],
    [["https://gateway.example:8443"], "gateway.example", true],
    [["https://gateway.example:8443"], "api.anthropic.com", true],
    [["https://gateway.example:8443"], "other.example", false],
  ])("%j lists %s: %s", (allowed, hostname, expected) => {
    expect(isListedHost(allowed, hostname)).toBe(expected);
  });
});
