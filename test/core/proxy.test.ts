import { expect, test } from "vitest";
import { proxyFor } from "../../src/core/proxy.ts";

const PROXY = "http://proxy.invalid:3128";
const asked = (url: string, noProxy?: string) => proxyFor(new URL(url), { httpsProxy: PROXY, noProxy });

test("https uses HTTPS_PROXY only, http uses HTTP_PROXY only", () => {
  expect(proxyFor(new URL("https://a.invalid"), { httpProxy: PROXY })).toBeUndefined();
  expect(proxyFor(new URL("http://a.invalid"), { httpProxy: PROXY })).toBe(PROXY);
  expect(proxyFor(new URL("https://a.invalid"), { httpsProxy: "proxy.invalid:3128" })).toBe(PROXY);
  expect(proxyFor(new URL("https://a.invalid"), { httpsProxy: "" })).toBeUndefined();
});

test.each(["https://127.0.0.1:6443", "https://127.8.8.8", "https://localhost:6443", "https://[::1]:6443"])(
  "%s needs no proxy",
  (url) => expect(asked(url)).toBeUndefined(),
);

test.each([
  ["https://10.96.0.1:443", "10.0.0.0/8"],
  ["https://10.96.0.1:443", "192.168.0.0/16, 10.96.0.0/12"],
  ["https://10.96.0.1:443", "10.96.0.1"],
  ["https://10.96.0.1:443", "10.96.0.1:443"],
  ["https://[fd00::1]:443", "fd00::/8"],
  ["https://[fd00::1]:6443", "[fd00::1]:6443"],
  ["https://[fd00::1]", "fd00::1"],
  ["https://kubernetes.default.svc", ".svc"],
  ["https://kubernetes.default.svc", "svc"],
  ["https://kubernetes.default.svc", "*.default.svc"],
  ["https://Kubernetes.Default.svc.", "kubernetes.default.svc"],
  ["https://api.invalid:6443", "api.invalid:6443"],
  ["https://anything.invalid", "*"],
])("%s is exempt with NO_PROXY=%s", (url, noProxy) => expect(asked(url, noProxy)).toBeUndefined());

test.each([
  ["https://11.96.0.1", "10.0.0.0/8"],
  ["https://10.96.0.1", "10.0.0.0/33"],
  ["https://10.96.0.1", "10.0.0.0/"],
  ["https://10.96.0.1", "nonsense/8"],
  ["https://10.96.0.1", "fd00::/8"],
  ["https://host.invalid", "10.0.0.0/8"],
  ["https://10.96.0.1:443", "10.96.0.1:6443"],
  ["https://default.svc", ".default.svc"],
  ["https://notsvc", "svc"],
  ["https://api.invalid", "api.invalid:6443"],
  ["https://api.invalid", " , ,"],
])("%s uses the proxy with NO_PROXY=%s", (url, noProxy) => expect(asked(url, noProxy)).toBe(PROXY));
