/** What the kubelet checks while a Pod is parked: its image and its Secret. */
import { join } from "node:path";
import type { Act } from "./act.ts";
import { isParked, stateOf } from "./stage.ts";

const REGISTRY_PORT = 5_001;

export const pulls: Act = {
  name: "pulls",
  async play(stage) {
    const { dir } = stage;
    const { control } = stage.cluster;
    const registry = async () => {
      const layout = join(dir, "registry");
      await control.run("sh", ["-c", `mkdir -p ${layout} && tar -xf ${join(dir, "image", "images.tar")} -C ${layout}`]);
      const args = [join(import.meta.dirname, "registry-main.ts"), layout, String(REGISTRY_PORT)];
      await control.spawn({ name: "registry", command: process.execPath, args });
    };
    await registry();
    const container = { image: `127.0.0.1:${REGISTRY_PORT}/worker:1`, imagePullPolicy: "Always" };
    const shape = { parked: true, container };
    const kept = await stage.pod("parked-pull-always", "a parked Pod that asks for its image at every look", shape);
    await stage.parked(kept);
    await stage.quiet(kept);
    stage.did("the registry went away");
    await control.signal("registry", "SIGKILL");
    await stage.until("cannot pull", () => /Image/.test(stateOf(kept.pod)?.waiting?.reason ?? ""));
    await stage.until("backs off", () => stateOf(kept.pod)?.waiting?.reason === "ImagePullBackOff");
    stage.did("the registry came back");
    await registry();
    await stage.until("parked again", () => isParked(kept.pod));
    await stage.delete(kept);
    await stage.gone(kept);
    const lost = await stage.pod("parked-image-removed", "a parked Pod whose image is removed from the node", {
      parked: true,
      container: { ...container, imagePullPolicy: "IfNotPresent" },
    });
    await stage.parked(lost);
    stage.did("the image was removed from the node, and no registry has it");
    await control.signal("registry", "SIGKILL");
    const address = (await control.state()).containerdSocket;
    const image = `127.0.0.1:${REGISTRY_PORT}/worker:1`;
    const script = `for ref in $(ctr -a ${address} -n k8s.io images list -q); do
      case $ref in *pause*) ;; *) ctr -a ${address} -n k8s.io images remove --sync $ref ;; esac; done; echo ${image}`;
    await control.run("sh", ["-c", script]);
    await stage.until("cannot pull", () => /Image/.test(stateOf(lost.pod)?.waiting?.reason ?? ""));
    await stage.until("backs off", () => stateOf(lost.pod)?.waiting?.reason === "ImagePullBackOff");
    await stage.delete(lost);
    await stage.gone(lost);
  },
};

const FLOW_CONTROL = "/apis/flowcontrol.apiserver.k8s.io/v1";

/** Makes the API server reject every request for Secrets from a kubelet, as if it were overloaded. */
const NO_ROOM = [
  {
    path: "prioritylevelconfigurations",
    kind: "PriorityLevelConfiguration",
    spec: {
      type: "Limited",
      limited: {
        nominalConcurrencyShares: 0,
        lendablePercent: 0,
        borrowingLimitPercent: 0,
        limitResponse: { type: "Reject" },
      },
    },
  },
  {
    path: "flowschemas",
    kind: "FlowSchema",
    spec: {
      priorityLevelConfiguration: { name: "no-room" },
      matchingPrecedence: 2,
      rules: [
        {
          subjects: [{ kind: "Group", group: { name: "system:nodes" } }],
          resourceRules: [{ verbs: ["*"], apiGroups: [""], resources: ["secrets"], namespaces: ["*"] }],
        },
      ],
    },
  },
];

export const secrets: Act = {
  name: "secrets",
  async play(stage) {
    const { api } = stage.cluster;
    for (const { path, kind, spec } of NO_ROOM) {
      const object = { apiVersion: "flowcontrol.apiserver.k8s.io/v1", kind, metadata: { name: "no-room" }, spec };
      await api.create(`${FLOW_CONTROL}/${path}`, object);
    }
    await stage.until("no room", async () => {
      const schema = await api.get<{ status?: unknown }>(`${FLOW_CONTROL}/flowschemas/no-room`);
      return schema.status !== undefined && JSON.stringify(schema.status) !== "{}";
    });
    const note = "a parked Pod whose kubelet gets no Secrets from the API server until later";
    const parked = await stage.pod("parked-secrets-late", note, { parked: true });
    await stage.until("complains", () => stateOf(parked.pod)?.waiting?.message?.includes("failed to sync"));
    await stage.quiet(parked);
    stage.did("kubelet gets Secrets again");
    await api.delete(`${FLOW_CONTROL}/flowschemas/no-room`);
    await stage.until("parked", () => stateOf(parked.pod)?.waiting?.message?.includes("not found"));
    await stage.open(parked);
    await stage.running(parked);
    await stage.delete(parked);
    await stage.gone(parked);
  },
};
