import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ConfigError } from "../../src/core/errors.ts";
import { parseSettings } from "../../src/settings/config.ts";
import { type EnvironmentVariables, environmentVariable } from "../../src/settings/environment-variables.ts";
import { FLAGS } from "../../src/settings/flags.ts";

function messageOf(argv: readonly string[], env: EnvironmentVariables = {}): string {
  try {
    parseSettings(argv, env);
  } catch (error) {
    if (error instanceof ConfigError) return error.message;
    throw error;
  }
  throw new Error(`accepted: ${argv.join(" ")}`);
}

describe("settings", () => {
  test.each([
    ["berth-peers.berth-system.svc:8082", { host: "berth-peers.berth-system.svc", port: 8082 }],
    ["127.0.0.2:80", { host: "127.0.0.2", port: 80 }],
    ["[fd00::1]:8082", { host: "fd00::1", port: 8082 }],
  ])("webhook peers are at %s", (text, peers) => {
    const flags = ["--webhook-bind-address", ":8082", "--webhook-secrets", "/x", "--webhook-peers", text];
    expect(parseSettings(flags, {}).webhook.peers).toEqual(peers);
  });

  test("webhook peers must be a host and a port, and need a receiver", () => {
    const receiver = ["--webhook-bind-address", ":8082", "--webhook-secrets", "/x"];
    for (const text of [
      "berth-peers",
      "http://berth-peers:8082",
      "berth-peers:8082/webhook",
      "berth-peers:0x1",
      ":8082",
      "a:99999",
    ]) {
      expect(() => parseSettings([...receiver, "--webhook-peers", text], {}), text).toThrow(/is not host:port/);
    }
    expect(() => parseSettings(["--webhook-peers", "a:1"], {})).toThrow(/set that too/);
  });

  test("a webhook receiver needs its secrets", () => {
    expect(() => parseSettings(["--webhook-bind-address", ":8082"], {})).toThrow(/--webhook-secrets/);
    const flags = ["--webhook-bind-address", ":8082", "--webhook-secrets", "/etc/berth/webhook"];
    const expected = { bindAddress: ":8082", secrets: "/etc/berth/webhook", peers: undefined };
    expect(parseSettings(flags, {}).webhook).toEqual(expected);
    const { BERTH_WEBHOOK_BIND_ADDRESS, ...env } = { BERTH_WEBHOOK_BIND_ADDRESS: ":8082", BERTH_WEBHOOK_SECRETS: "/x" };
    expect(parseSettings([], env).webhook).toEqual({ bindAddress: "0", secrets: "/x", peers: undefined });
    expect(parseSettings([], { ...env, BERTH_WEBHOOK_BIND_ADDRESS }).webhook.bindAddress).toBe(":8082");
  });

  test("have safe defaults: all namespaces, one leader, https only", () => {
    expect(parseSettings([], {})).toEqual({
      kubeconfig: undefined,
      kubeEnvironment: {},
      namespaces: [],
      leaderElection: { enabled: true, namespace: undefined, shards: 1 },
      metricsBindAddress: ":8080",
      healthProbeBindAddress: ":8081",
      webhook: { bindAddress: "0", secrets: undefined, peers: undefined },
      consoleBindAddress: "0",
      logLevel: "info",
      allowedApiOrigins: ["https://api.anthropic.com"],
      podPolicy: { runtimeClasses: ["gvisor", "kata"] },
      runtimeClasses: { gVisor: "gvisor", Kata: "kata" },
      apiCidrs: ["160.79.104.0/23", "2607:6bc0::/48"],
      clusterDns: {
        pods: [
          { namespace: "kube-system", label: "k8s-app", value: "kube-dns", port: 53 },
          { namespace: "kube-system", label: "k8s-app", value: "node-local-dns", port: 53 },
          {
            namespace: "openshift-dns",
            label: "dns.operator.openshift.io/daemonset-dns",
            value: "default",
            port: 5353,
          },
        ],
        cidrs: undefined,
      },
      proxy: {},
    });
  });

  test("cluster DNS is configured as Pods, by namespace, label and port, and as addresses", () => {
    const flags = ["--cluster-dns-pods=dns/app=coredns:8053", "--cluster-dns-pods", "kube-system/k8s-app=kube-dns"];
    expect(parseSettings([...flags, "--cluster-dns-cidrs=10.0.0.10/32"], {}).clusterDns).toEqual({
      pods: [
        { namespace: "dns", label: "app", value: "coredns", port: 8053 },
        { namespace: "kube-system", label: "k8s-app", value: "kube-dns", port: 53 },
      ],
      cidrs: ["10.0.0.10/32"],
    });
  });

  test.each([
    "kube-dns",
    "kube-system/k8s-app",
    "Kube/k8s-app=x",
    "a/b=c:0",
    "a/b=c:65536",
    "a/b=c:x",
    "a/b=",
    "*/b=c",
  ])("an invalid --cluster-dns-pods value %s is refused with an example", (text) => {
    expect(messageOf(["--cluster-dns-pods", text])).toBe(
      `--cluster-dns-pods: "${text}" does not name Pods; write namespace/label=value, such as kube-system/k8s-app=kube-dns, and add :port if they do not listen on 53`,
    );
  });

  test("an invalid --cluster-dns-cidrs value is refused with an example", () => {
    expect(messageOf(["--cluster-dns-cidrs", "10.0.0.10"])).toBe(
      '--cluster-dns-cidrs: "10.0.0.10": write networks, such as 160.79.104.0/23 or 2607:6bc0::/48',
    );
  });

  test("every flag is read, with and without an equals sign", () => {
    const settings = parseSettings(
      [
        ...["--kubeconfig", "/some/config", "--namespace", "one", "--namespace=two"],
        ...["--leader-elect=false", "--leader-elect-namespace", "system"],
        ...["--metrics-bind-address", "127.0.0.1:0", "--health-probe-bind-address=0", "--log-level", "debug"],
        ...["--allowed-api-origins", "http://127.0.0.1:8765", "--allowed-api-origins=https://api.example.com"],
      ],
      {},
    );
    expect(settings).toMatchObject({
      kubeconfig: "/some/config",
      namespaces: ["one", "two"],
      leaderElection: { enabled: false, namespace: "system", shards: 1 },
      metricsBindAddress: "127.0.0.1:0",
      healthProbeBindAddress: "0",
      logLevel: "debug",
      allowedApiOrigins: ["http://127.0.0.1:8765", "https://api.example.com"],
    });
  });

  test("every flag is also read from the environment", () => {
    const settings = parseSettings([], {
      BERTH_KUBECONFIG: "/some/config",
      BERTH_NAMESPACE: "one, two,one",
      BERTH_LEADER_ELECT: "false",
      BERTH_LEADER_ELECT_NAMESPACE: "system",
      BERTH_METRICS_BIND_ADDRESS: "[::1]:9",
      BERTH_HEALTH_PROBE_BIND_ADDRESS: "0",
      BERTH_LOG_LEVEL: "warn",
      BERTH_ALLOWED_API_ORIGINS: "http://localhost:1,https://api.example.com",
      BERTH_ALLOWED_IN_TEMPLATES: "privileged, capabilities=NET_ADMIN,capabilities=SYS_PTRACE,hostPaths=/data",
    });
    expect(settings).toMatchObject({
      kubeconfig: "/some/config",
      namespaces: ["one", "two"],
      leaderElection: { enabled: false, namespace: "system", shards: 1 },
      metricsBindAddress: "[::1]:9",
      healthProbeBindAddress: "0",
      logLevel: "warn",
      allowedApiOrigins: ["http://localhost:1", "https://api.example.com"],
      podPolicy: { privileged: ["*"], capabilities: ["NET_ADMIN", "SYS_PTRACE"], hostPaths: ["/data"] },
    });
  });

  test("allow the RuntimeClasses of isolation, under the names that a flag gives them", () => {
    const flags = ["--runtime-classes=Kata=kata-qemu", "--allowed-in-templates=runtimeClasses=gvisor"];
    expect(parseSettings([...flags, "--allowed-in-templates=runtimeClasses=other"], {})).toMatchObject({
      runtimeClasses: { gVisor: "gvisor", Kata: "kata-qemu" },
      podPolicy: { runtimeClasses: ["gvisor", "kata-qemu", "other"] },
    });
  });

  test("a flag takes precedence over its variable, and lists are not merged", () => {
    const env = { BERTH_LOG_LEVEL: "warn", BERTH_NAMESPACE: "three", BERTH_LEADER_ELECT: "false" };
    const settings = parseSettings(["--log-level=error", "--namespace=one,two", "--leader-elect"], env);
    expect(settings).toMatchObject({
      logLevel: "error",
      namespaces: ["one", "two"],
      leaderElection: { enabled: true },
    });
  });

  test("an invalid variable is ignored if its flag is given", () => {
    expect(parseSettings(["--log-level=error"], { BERTH_LOG_LEVEL: "loud" }).logLevel).toBe("error");
  });

  test("an empty variable counts as unset", () => {
    const empty = Object.fromEntries(Object.values(FLAGS).map(({ name }) => [environmentVariable(name), ""]));
    expect(parseSettings([], empty)).toEqual(parseSettings([], {}));
  });

  test.each([
    [["--leader-elect"], true],
    [["--leader-elect", "true"], true],
    [["--leader-elect=false"], false],
    [["--leader-elect", "false"], false],
    [["--no-leader-elect"], false],
    [["--leader-elect", "--namespace", "one"], true],
  ])("%j sets leader election to %s", (argv, enabled) => {
    expect(parseSettings(argv, {}).leaderElection.enabled).toBe(enabled);
  });

  test("proxies come from the same variables as in curl, lower case first", () => {
    const env = {
      HTTPS_PROXY: "http://upper:1",
      https_proxy: "http://lower:1",
      NO_PROXY: "10.0.0.0/8",
      http_proxy: "",
    };
    expect(parseSettings([], env).proxy).toEqual({ httpsProxy: "http://lower:1", noProxy: "10.0.0.0/8" });
  });

  test("the variables that locate the cluster are passed on", () => {
    const env = {
      KUBECONFIG: "/a:/b",
      KUBERNETES_SERVICE_HOST: "10.0.0.1",
      KUBERNETES_SERVICE_PORT: "443",
      HOME: "/x",
    };
    const { HOME: _, ...expected } = env;
    expect(parseSettings([], env).kubeEnvironment).toEqual(expected);
  });
});

describe("invalid settings", () => {
  test.each<[string, readonly string[], RegExp]>([
    ["an unknown flag", ["--foo"], /unknown option '--foo'/],
    ["a misspelled flag", ["--log-levl", "info"], /Did you mean --log-level\?/],
    ["a stray word", ["now"], /too many arguments/],
    ["a flag without its value", ["--namespace"], /--namespace <name>.*missing/],
    ["an empty kubeconfig", ["--kubeconfig="], /--kubeconfig: "": write the path of a file/],
    ["an unknown level", ["--log-level=loud"], /--log-level: "loud": write one of trace, debug, info/],
    ["a level in capitals", ["--log-level=INFO"], /write one of/],
    ["a port without a colon", ["--metrics-bind-address=8080"], /"8080" is not an address.*write :8080/],
    ["a port too high", ["--metrics-bind-address=:65536"], /":65536" is not an address/],
    ["a wrong address", ["--health-probe-bind-address=10.0.0.300:80"], /--health-probe-bind-address: "10.0.0.300:80"/],
    ["a namespace in capitals", ["--namespace=Agents"], /--namespace: "Agents": a namespace has at most 63/],
    ["one bad namespace of two", ["--namespace=good,b_d"], /a namespace has at most 63/],
    ["an empty list of namespaces", ["--namespace=,"], /the list is empty/],
    ["an invalid Lease namespace", ["--leader-elect-namespace=a,b"], /--leader-elect-namespace/],
    ["zero shards", ["--shards=0"], /--shards: "0": write a whole number from 1 to 64/],
    ["too many shards", ["--shards=65"], /--shards: "65"/],
    ["shards that are not a number", ["--shards=three"], /--shards: "three"/],
    ["a removed flag", ["--protocol-timeout=2s"], /^--protocol-timeout: removed; the timeout is always 1\.5 s$/],
    ["shards without leader election", ["--shards=3", "--leader-elect=false"], /--shards: more than 1 needs leader/],
    ["neither true nor false", ["--leader-elect=yes"], /--leader-elect: "yes": write true or false/],
    [
      "an unknown exception",
      ["--allowed-in-templates=sudo"],
      /--allowed-in-templates: "sudo": is unknown; write one of/,
    ],
    [
      "a RuntimeClass of an unknown isolation",
      ["--runtime-classes=Firecracker=fc"],
      /"Firecracker=fc" is no RuntimeClass of gVisor or Kata; write for example Kata=kata-qemu/,
    ],
    ["a RuntimeClass without a name", ["--runtime-classes=gVisor"], /"gVisor" is no RuntimeClass/],
    ["a RuntimeClass that is no name", ["--runtime-classes=gVisor=g_visor"], /"gVisor=g_visor" is no RuntimeClass/],
    ["a capability without its name", ["--allowed-in-templates=capabilities"], /write capabilities=<name>/],
    [
      "an origin with a path",
      ["--allowed-api-origins=https://a.example/v1"],
      /"https:\/\/a.example\/v1" is not an origin/,
    ],
    [
      "an origin without scheme",
      ["--allowed-api-origins=a.example"],
      /is not an origin; write only scheme, host and port/,
    ],
    ["an origin with a user", ["--allowed-api-origins=https://u:p@a.example"], /is not an origin/],
    ["an origin of another scheme", ["--allowed-api-origins=ftp://a.example"], /is not an origin/],
  ])("%s", (_name, argv, expected) => {
    expect(messageOf(argv)).toMatch(expected);
  });

  test("an invalid variable is reported by its own name", () => {
    expect(messageOf([], { BERTH_LOG_LEVEL: "loud" })).toMatch(/^BERTH_LOG_LEVEL: "loud": write one of/);
  });

  test("a misspelled variable is refused, because it would be ignored silently", () => {
    expect(messageOf([], { BERTH_LOGLEVEL: "debug" })).toMatch(
      /unknown environment variable BERTH_LOGLEVEL; use one of .*BERTH_LOG_LEVEL/,
    );
  });

  test("a removed variable is refused with what replaced it", () => {
    expect(messageOf([], { BERTH_PROTOCOL_TIMEOUT: "2s" })).toBe(
      "BERTH_PROTOCOL_TIMEOUT: removed; the timeout is always 1.5 s",
    );
  });

  test("variables of a Service named berth are ignored", () => {
    const links = {
      BERTH_SERVICE_HOST: "10.0.0.1",
      BERTH_SERVICE_PORT: "8080",
      BERTH_SERVICE_PORT_METRICS: "8080",
      BERTH_PORT: "tcp://10.0.0.1:8080",
      BERTH_PORT_8080_TCP: "tcp://10.0.0.1:8080",
      BERTH_PORT_8080_TCP_PROTO: "tcp",
      BERTH_METRICS_SERVICE_HOST: "10.0.0.1",
      BERTH_METRICS_PORT_8080_TCP_ADDR: "10.0.0.1",
    };
    expect(parseSettings([], links)).toEqual(parseSettings([], {}));
  });

  test("variables of the project's own tests are ignored", () => {
    expect(parseSettings([], { BERTH_TEST_DOWNLOADS: "off" })).toEqual(parseSettings([], {}));
  });

  test("all problems are reported at once", () => {
    const lines = messageOf(["--log-level=loud", "--metrics-bind-address=x"], { BERTH_NAMESPACE: "A" }).split("\n");
    expect(lines).toHaveLength(3);
  });

  test("any command line gives settings or a ConfigError", () => {
    const word = fc.oneof(
      fc.constantFrom(...Object.values(FLAGS).map(({ name }) => `--${name}`), "--no-leader-elect", "--", "-x", "=", ""),
      fc.string(),
    );
    fc.assert(
      fc.property(fc.array(word, { maxLength: 5 }), (argv) => {
        try {
          parseSettings(argv, {});
        } catch (error) {
          expect(error).toBeInstanceOf(ConfigError);
        }
      }),
    );
  });
});
