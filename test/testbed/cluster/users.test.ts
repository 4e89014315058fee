import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { kubeconfigFile, renderKubeconfig } from "../../../testbed/cluster/kubeconfig.ts";
import { makeUsers, tokenFile } from "../../../testbed/cluster/users.ts";

describe("the users of a cluster", () => {
  it("have different tokens", () => {
    const users = makeUsers([{ name: "alice", groups: ["dev", "ops"] }]);
    expect(new Set([...users.values()].map(({ token }) => token)).size).toBe(users.size);
    expect(users.get("alice")?.groups).toEqual(["dev", "ops"]);
  });

  it("are written in the API server's format", () => {
    const text = tokenFile([
      { name: "alice", groups: ["dev", "ops"], token: "t1" },
      { name: "system:kube-scheduler", groups: [], token: "t2" },
    ]);
    expect(text).toBe('t1,alice,alice,"dev,ops"\nt2,system:kube-scheduler,system:kube-scheduler\n');
  });
});

describe("a kubeconfig", () => {
  it("contains everything it needs", () => {
    const config = parse(renderKubeconfig("https://127.0.0.1:1", "CA", "alice", { certificate: "CERT", key: "KEY" }));
    expect(config).toMatchObject({
      clusters: [{ cluster: { server: "https://127.0.0.1:1", "certificate-authority-data": "Q0E=" } }],
      users: [{ name: "alice", user: { "client-certificate-data": "Q0VSVA==", "client-key-data": "S0VZ" } }],
    });
  });

  it("stays in its folder regardless of its user's name", () => {
    expect(kubeconfigFile("/d", "../a/system:b")).toBe("/d/.._a_system_b.kubeconfig");
  });
});
