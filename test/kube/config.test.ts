import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { stringify } from "yaml";
import { ConfigError } from "../../src/core/errors.ts";
import { loadKubeConfig } from "../../src/kube/config.ts";
import { Credentials } from "../../src/kube/credentials.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "berth-kubeconfig-"));
});

afterEach(() => rmSync(folder, { recursive: true, force: true }));

const base64 = (text: string) => Buffer.from(text).toString("base64");

function write(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

/** A kubeconfig with one cluster `c`, user `u` and context `x`. */
function kubeconfig(cluster: object = {}, user: object = {}, context: object = {}, name = "config"): string {
  return write(
    name,
    stringify({
      apiVersion: "v1",
      kind: "Config",
      "current-context": "x",
      clusters: [{ name: "c", cluster: { server: "https://cluster.invalid:6443", ...cluster } }],
      users: [{ name: "u", user }],
      contexts: [{ name: "x", context: { cluster: "c", user: "u", ...context } }],
    }),
  );
}

function serviceAccount(): string {
  const path = join(folder, "serviceaccount");
  mkdirSync(path);
  writeFileSync(join(path, "token"), "pod-token\n");
  writeFileSync(join(path, "ca.crt"), "CA");
  writeFileSync(join(path, "namespace"), "berth-system\n");
  return path;
}

describe("a kubeconfig", () => {
  test("may contain its data", () => {
    const file = kubeconfig(
      {
        "certificate-authority-data": base64("CA"),
        "tls-server-name": "other",
        "proxy-url": "http://proxy.invalid:3128",
      },
      { "client-certificate-data": base64("CERT"), "client-key-data": base64("KEY"), token: "t", as: "somebody" },
      { namespace: "agents" },
    );
    expect(loadKubeConfig(file)).toEqual({
      server: "https://cluster.invalid:6443",
      ca: "CA",
      tlsServerName: "other",
      proxyUrl: "http://proxy.invalid:3128",
      auth: { token: "t", cert: "CERT", key: "KEY", impersonate: { user: "somebody" } },
      currentNamespace: "agents",
    });
  });

  test("may name files, relative to its own folder", () => {
    write("ca.pem", "CA");
    write("cert.pem", "CERT");
    write("key.pem", "KEY");
    const file = kubeconfig(
      { "certificate-authority": "ca.pem" },
      { "client-certificate": "cert.pem", "client-key": "key.pem", tokenFile: "token" },
    );
    expect(loadKubeConfig(file)).toMatchObject({
      ca: "CA",
      auth: { cert: "CERT", key: "KEY", tokenFile: join(folder, "token") },
      currentNamespace: "default",
    });
  });

  test("may have a server below a path, whose last slash is removed", () => {
    const file = kubeconfig({ server: "https://rancher.invalid/k8s/clusters/c-1/" });
    expect(loadKubeConfig(file).server).toBe("https://rancher.invalid/k8s/clusters/c-1");
  });

  test("disables TLS verification only explicitly", () => {
    expect(loadKubeConfig(kubeconfig()).insecureSkipTlsVerify).toBeUndefined();
    expect(loadKubeConfig(kubeconfig({ "insecure-skip-tls-verify": true })).insecureSkipTlsVerify).toBe(true);
  });

  test("may be several files in KUBECONFIG: the first value wins", () => {
    const first = write(
      "first",
      stringify({ "current-context": "x", users: [{ name: "u", user: { token: "first" } }] }),
    );
    const second = kubeconfig({}, { token: "second" }, {}, "second");
    expect(loadKubeConfig(undefined, { KUBECONFIG: `${first}:${second}` }).auth).toEqual({ token: "first" });
    expect(loadKubeConfig(second, { KUBECONFIG: first }).auth).toEqual({ token: "second" });
  });

  test("may have other contexts than the current one, which the caller can name", () => {
    const current = kubeconfig({}, { token: "t" });
    const context = { cluster: "d", user: "v", namespace: "agents" };
    const other = write(
      "other",
      stringify({
        clusters: [{ name: "d", cluster: { server: "https://other.invalid" } }],
        users: [{ name: "v", user: { token: "other" } }],
        contexts: [{ name: "y", context }],
      }),
    );
    const env = { KUBECONFIG: `${current}:${other}` };
    const named = { server: "https://other.invalid", auth: { token: "other" }, currentNamespace: "agents" };
    expect(loadKubeConfig(undefined, env, { context: "y" })).toEqual(named);
    // A named context needs no current one.
    expect(loadKubeConfig(other, {}, { context: "y" })).toEqual(named);
    expect(loadKubeConfig(undefined, env).auth).toEqual({ token: "t" });
    expect(() => loadKubeConfig(other, {}, { context: "x" })).toThrow(
      new ConfigError(`kubeconfig ${other} has no context "x"; kubectl config get-contexts lists them`),
    );
  });

  test("of KUBECONFIG may be missing or empty, as with kubectl", () => {
    const missing = join(folder, "nothing");
    const empty = write("empty", "");
    const comments = write("comments", "# nothing yet\n---\n");
    const file = kubeconfig({}, { token: "t" });
    const KUBECONFIG = ["", missing, empty, comments, file, missing].join(":");
    expect(loadKubeConfig(undefined, { KUBECONFIG }).auth).toEqual({ token: "t" });
  });

  test("a KUBECONFIG without any existing file is a ConfigError that names them", () => {
    const KUBECONFIG = `${join(folder, "a")}:${join(folder, "b")}`;
    expect(() => loadKubeConfig(undefined, { KUBECONFIG })).toThrow(ConfigError);
    expect(() => loadKubeConfig(undefined, { KUBECONFIG })).toThrow(
      /no file listed in KUBECONFIG exists: .*\/a, .*\/b$/,
    );
  });

  test("given by name must be one existing file", () => {
    const file = kubeconfig();
    expect(() => loadKubeConfig(`${file}:${file}`)).toThrow(/^cannot read kubeconfig .*ENOENT/);
  });

  test("may impersonate with uid, groups and extra fields, but only with a user", () => {
    const more = {
      "as-uid": "42",
      "as-groups": ["dev", "ops"],
      "as-user-extra": { scopes: ["view"], "example.com/team": ["a", "b"] },
    };
    expect(loadKubeConfig(kubeconfig({}, { as: "somebody", ...more })).auth.impersonate).toEqual({
      user: "somebody",
      uid: "42",
      groups: ["dev", "ops"],
      extra: { scopes: ["view"], "example.com/team": ["a", "b"] },
    });
    for (const [field, value] of Object.entries(more)) {
      expect(() => loadKubeConfig(kubeconfig({}, { [field]: value })), field).toThrow(/without as$/);
    }
  });

  test.each([
    ["as", 1000],
    ["as", true],
    ["as", ["hunter2"]],
    ["as-uid", 1000],
    ["as-groups", "hunter2"],
    ["as-groups", { hunter2: true }],
    ["as-groups", [1000]],
    ["as-groups", ["dev", null]],
    ["as-user-extra", "hunter2"],
    ["as-user-extra", ["hunter2"]],
    ["as-user-extra", { scopes: "hunter2" }],
    ["as-user-extra", { scopes: ["view", 1000] }],
  ])("refuses %s of another type (%j)", (field, value) => {
    const file = kubeconfig({}, { as: "somebody", [field]: value });
    expect(() => loadKubeConfig(file)).toThrow(ConfigError);
    expect(() => loadKubeConfig(file)).toThrow(RegExp(`^kubeconfig: user "u" has no .* in ${field}\\b`));
    expect(() => loadKubeConfig(file)).not.toThrow(/hunter2|1000/);
  });

  test("may have empty impersonation fields, as with kubectl", () => {
    const empty = { as: "", "as-uid": "", "as-groups": [], "as-user-extra": {} };
    const none = { as: null, "as-uid": null, "as-groups": null, "as-user-extra": null };
    for (const user of [empty, none]) {
      expect(loadKubeConfig(kubeconfig({}, { token: "t", ...user })).auth).toEqual({ token: "t" });
    }
  });

  test("gives an exec plug-in the cluster's data if it requests them", async () => {
    const script = `const { spec } = JSON.parse(process.env.KUBERNETES_EXEC_INFO);
      const token = Buffer.from(JSON.stringify(spec.cluster ?? null)).toString("base64");
      console.log(JSON.stringify({ kind: "ExecCredential", status: { token } }));`;
    write("ca.pem", "CA");
    const toldTo = async (provideClusterInfo: boolean | undefined, cluster: object) => {
      const apiVersion = "client.authentication.k8s.io/v1";
      const exec = { apiVersion, command: process.execPath, args: ["-e", script], provideClusterInfo };
      const credentials = new Credentials(loadKubeConfig(kubeconfig(cluster, { exec })).auth, new VirtualClock());
      const { authorization } = (await credentials.current()).headers;
      return JSON.parse(Buffer.from(String(authorization).replace("Bearer ", ""), "base64").toString("utf8"));
    };
    const whole = {
      "certificate-authority": "ca.pem",
      "tls-server-name": "other",
      "insecure-skip-tls-verify": true,
      "proxy-url": "http://proxy.invalid:3128",
      extensions: [
        { name: "other", extension: { no: "matter" } },
        { name: "client.authentication.k8s.io/exec", extension: { audience: "a" } },
      ],
    };
    expect(await toldTo(true, whole)).toEqual({
      server: "https://cluster.invalid:6443",
      "certificate-authority-data": base64("CA"),
      "tls-server-name": "other",
      "insecure-skip-tls-verify": true,
      "proxy-url": "http://proxy.invalid:3128",
      config: { audience: "a" },
    });
    expect(await toldTo(true, {})).toEqual({ server: "https://cluster.invalid:6443" });
    expect(await toldTo(undefined, whole)).toBeNull();
  });

  test("gets a token from an exec plug-in with its ExecInfo", async () => {
    const script = `const info = JSON.parse(process.env.KUBERNETES_EXEC_INFO);
      console.log(JSON.stringify({ apiVersion: info.apiVersion, kind: "ExecCredential", status: { token: "from-" + process.env.WHO } }));`;
    const exec = {
      apiVersion: "client.authentication.k8s.io/v1",
      command: process.execPath,
      args: ["-e", script],
      env: [{ name: "WHO", value: "plugin" }],
    };
    const { auth } = loadKubeConfig(kubeconfig({}, { exec }));
    const credentials = new Credentials(auth, new VirtualClock());
    expect(credentials.refreshable).toBe(true);
    expect((await credentials.current()).headers).toEqual({ authorization: "Bearer from-plugin" });
  });

  test("reports a failed exec plug-in, and runs it again the next time", async () => {
    const marker = join(folder, "ran");
    const script = `const fs = require("node:fs");
      if (!fs.existsSync(${JSON.stringify(marker)})) { fs.writeFileSync(${JSON.stringify(marker)}, ""); console.error("no luck"); process.exit(3); }
      console.log(JSON.stringify({ kind: "ExecCredential", status: { token: "second" } }));`;
    const exec = { apiVersion: "client.authentication.k8s.io/v1", command: process.execPath, args: ["-e", script] };
    const credentials = new Credentials(loadKubeConfig(kubeconfig({}, { exec })).auth, new VirtualClock());
    await expect(credentials.current()).rejects.toThrow("no luck");
    expect((await credentials.current()).headers).toEqual({ authorization: "Bearer second" });
  });

  test("does not quote the output of an exec plug-in that is no JSON, since it may be a token", async () => {
    const exec = {
      apiVersion: "client.authentication.k8s.io/v1",
      command: process.execPath,
      args: ["-e", "console.log('hunter2')"],
    };
    const credentials = new Credentials(loadKubeConfig(kubeconfig({}, { exec })).auth, new VirtualClock());
    const failed = credentials.current();
    await expect(failed).rejects.toThrow(/it is not JSON$/);
    await expect(failed).rejects.not.toThrow("hunter2");
  });

  test.each([
    ["a missing file", () => join(folder, "nothing"), /cannot read kubeconfig .*nothing: ENOENT/],
    ["a folder", () => folder, /cannot read kubeconfig .*: EISDIR/],
    [
      "no YAML",
      () => write("config", "users: []\n{{{"),
      /kubeconfig .*config is not valid YAML: line 2, column 4: bad indent$/,
    ],
    ["nothing", () => write("config", ""), /has no current-context/],
    ["a YAML list", () => write("config", "- 1"), /is not a YAML mapping/],
    ["no current context", () => write("config", "clusters: []"), /no current-context/],
    ["a missing context", () => write("config", "current-context: y"), /has no context "y"/],
    ["a missing cluster", () => kubeconfig({}, {}, { cluster: "z" }), /has no cluster "z"/],
    ["a missing user", () => kubeconfig({}, {}, { user: "z" }), /has no user "z"/],
    ["a server that is no URL", () => kubeconfig({ server: "nonsense" }), /is not a URL/],
    ["a server of another protocol", () => kubeconfig({ server: "ftp://x" }), /https or http/],
    [
      "an authority file that is not there",
      () => kubeconfig({ "certificate-authority": "none" }),
      /cannot read .*none/,
    ],
    [
      "a certificate without a key",
      () => kubeconfig({}, { "client-certificate-data": base64("C") }),
      /without its key/,
    ],
  ])("reports %s as a ConfigError", (_name, make, message) => {
    const file = make();
    expect(() => loadKubeConfig(file)).toThrow(ConfigError);
    expect(() => loadKubeConfig(file)).toThrow(message);
  });
});

describe("in a Pod", () => {
  test("uses the service account and the address from the Pod's environment", () => {
    const env = { KUBERNETES_SERVICE_HOST: "10.96.0.1", KUBERNETES_SERVICE_PORT: "6443" };
    const mount = serviceAccount();
    expect(loadKubeConfig(undefined, env, { serviceAccount: mount })).toEqual({
      server: "https://10.96.0.1:6443",
      ca: "CA",
      auth: { tokenFile: join(mount, "token") },
      currentNamespace: "berth-system",
    });
  });

  test("puts an IPv6 address in brackets, and defaults to the API server's name in the cluster", () => {
    const mount = serviceAccount();
    expect(loadKubeConfig(undefined, { KUBERNETES_SERVICE_HOST: "fd00::1" }, { serviceAccount: mount }).server).toBe(
      "https://[fd00::1]:443",
    );
    expect(loadKubeConfig(undefined, {}, { serviceAccount: mount }).server).toBe("https://kubernetes.default.svc:443");
  });

  test("prefers a kubeconfig that is given", () => {
    const file = kubeconfig();
    expect(loadKubeConfig(undefined, { KUBECONFIG: file }, { serviceAccount: serviceAccount() }).server).toBe(
      "https://cluster.invalid:6443",
    );
  });
});

describe("credentials", () => {
  const clock = new VirtualClock();

  test("impersonation headers match client-go's", async () => {
    const impersonate = {
      user: "zoë",
      uid: "42",
      groups: ["dev", "ops"],
      extra: { scopes: ["view"], "example.com/50%": ["a", "b"], ä: ["x"], none: [] },
    };
    const credentials = new Credentials({ token: "t", impersonate }, clock);
    expect((await credentials.current()).headers).toEqual({
      authorization: "Bearer t",
      // UTF-8, one character per byte.
      "impersonate-user": "zoÃ«",
      "impersonate-uid": "42",
      "impersonate-group": ["dev", "ops"],
      "impersonate-extra-scopes": ["view"],
      "impersonate-extra-example.com%2F50%25": ["a", "b"],
      "impersonate-extra-%C3%A4": ["x"],
    });
  });

  test("a token file is read again after a minute, and at once when the token was refused", async () => {
    const tokenFile = write("token", "one\n");
    const credentials = new Credentials({ tokenFile }, clock);
    const bearer = async (fresh = false) => (await credentials.current(fresh)).headers.authorization;
    expect(await bearer()).toBe("Bearer one");
    write("token", "two");
    expect(await bearer()).toBe("Bearer one");
    expect(await bearer(true)).toBe("Bearer two");
    write("token", "three");
    await clock.advance(59_999);
    expect(await bearer()).toBe("Bearer two");
    await clock.advance(1);
    expect(await bearer()).toBe("Bearer three");
  });

  test("the last token stays in use while its file is missing for a moment", async () => {
    const tokenFile = write("token", "one");
    const credentials = new Credentials({ tokenFile }, clock);
    await credentials.current();
    rmSync(tokenFile);
    expect((await credentials.current(true)).headers.authorization).toBe("Bearer one");
    await expect(new Credentials({ tokenFile }, clock).current()).rejects.toThrow(/ENOENT/);
  });

  test("basic authentication allows any characters", async () => {
    const credentials = new Credentials({ basic: { username: "ä", password: "€" } }, clock);
    const { authorization = "" } = (await credentials.current()).headers;
    expect(Buffer.from(String(authorization).replace("Basic ", ""), "base64").toString("utf8")).toBe("ä:€");
  });
});
