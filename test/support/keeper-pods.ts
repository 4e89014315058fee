import { ANNOTATION_PARKING, ANNOTATION_SESSION_CONTAINER } from "../../src/api/names.ts";
import type { Container, Pod } from "../../src/kube/resource.ts";
import { keeperOf, keeperVolume, turnAnnotations } from "../../src/pods/turns.ts";

export interface KeeperPod {
  readonly name: string;
  readonly namespace: string;
  readonly annotations?: Readonly<Record<string, string>>;
  /** Of the session container, before it becomes the keeper. */
  readonly container?: Partial<Container>;
  readonly spec?: Partial<Pod["spec"]>;
}

/** A Pod whose session can sleep, before it has any turn. Its turns share the volume at /workspace. */
export function keeperPod({ name, namespace, annotations, container, spec }: KeeperPod): Pod {
  const volumeMounts = [{ name: "workspace", mountPath: "/workspace" }];
  const worker = { name: "worker", image: "worker:1", command: ["worker"], volumeMounts, ...container };
  return {
    metadata: {
      name,
      namespace,
      annotations: {
        [ANNOTATION_SESSION_CONTAINER]: worker.name,
        [ANNOTATION_PARKING]: "Shell",
        ...turnAnnotations(annotations?.[ANNOTATION_PARKING] === "Program" ? "Program" : "Shell"),
        ...annotations,
      },
    },
    spec: {
      containers: [keeperOf(worker)],
      volumes: [{ name: "workspace", emptyDir: {} }, keeperVolume()],
      restartPolicy: "Never",
      terminationGracePeriodSeconds: 10,
      ...spec,
    },
  };
}
