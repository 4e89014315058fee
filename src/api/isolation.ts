import { z } from "zod";
import type { PodTemplate } from "./pod-template.ts";
import type { Rule } from "./rule.ts";

/** What can isolate Pods from their node, in addition to a container. */
const ISOLATIONS = ["gVisor", "Kata"] as const;
export type Isolation = (typeof ISOLATIONS)[number];

/** The name of the RuntimeClass for each isolation: clusters name them differently. */
export type RuntimeClasses = Readonly<Record<Isolation, string>>;

/** The names that gVisor's and Kata's own pages use. */
export const DEFAULT_RUNTIME_CLASSES: RuntimeClasses = { gVisor: "gvisor", Kata: "kata" };

/** `isolation` of both modes. */
export const isolation = z.enum(ISOLATIONS).optional().meta({
  description:
    "Isolates the Pods from their node's kernel, with gVisor (a kernel in user space) or Kata Containers (a virtual machine). Set it to run code that you do not trust. Berth sets runtimeClassName; the cluster needs that RuntimeClass. Default: the template's runtimeClassName, or none.",
});

/** The part of either mode's spec that chooses the runtime of its Pods. */
export interface Isolated {
  readonly isolation?: Isolation | undefined;
  readonly template: PodTemplate;
}

/** Of two runtimes, one would be ignored. */
export const isolationRule: Rule<Isolated> = {
  cel: "!has(self.isolation) || !has(self.template.spec.runtimeClassName)",
  field: "isolation",
  message: "isolation and template.spec.runtimeClassName both set the Pods' runtime; remove one of them",
  holds: ({ isolation, template }) => isolation === undefined || template.spec.runtimeClassName === undefined,
};

/** The spec of a mode whose template has the RuntimeClass that `isolation` names. */
export function withRuntimeClass<T extends Isolated>(mode: T, classes: RuntimeClasses): T {
  const { isolation, template } = mode;
  if (isolation === undefined) return mode;
  return { ...mode, template: { ...template, spec: { ...template.spec, runtimeClassName: classes[isolation] } } };
}

/** Names the RuntimeClass of Pods in a message about them; empty: they have none. */
export function ofRuntimeClass(name: string | undefined): string {
  return name ? ` of RuntimeClass ${name}` : "";
}
