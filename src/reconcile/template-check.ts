import { errorText } from "../core/errors.ts";
import type { KubeClient } from "../kube/client.ts";
import { isBadRequest, isForbidden, isInvalid, isNamespaceTerminating, isQuotaExceeded } from "../kube/errors.ts";
import { PODS, type Pod } from "../kube/resource.ts";
import type { Verdict } from "../sessions/api-health.ts";
import { newPodName, type SessionTemplate } from "../sessions/pod-render.ts";

/** What the API server says of a template; `final`: it stays so until the template changes. */
export interface TemplateVerdict extends Verdict {
  readonly accepted: boolean;
  readonly final: boolean;
}

const ALWAYS_PULLS =
  "the session container pulls its image with Always: the registry is asked every few seconds while a Pod is parked; IfNotPresent and a fixed tag avoid that";

/** A dry-run creation with strict validation: a typo in the template is a refusal that names the field. Never throws. */
export async function checkTemplate(
  kube: KubeClient,
  environment: string,
  template: SessionTemplate,
): Promise<TemplateVerdict> {
  try {
    const pod = await kube.create(PODS, template.render(newPodName(environment)), {
      dryRun: true,
      fieldValidation: "Strict",
    });
    return accepted(template, pod);
  } catch (error) {
    // Validation comes before the quota: the template is good, the namespace is full. Creating Pods will say so.
    if (isQuotaExceeded(error)) return accepted(template, null);
    const message = errorText(error);
    if (isNamespaceTerminating(error)) return refused("TemplateUnchecked", message);
    if (isBadRequest(error) || isInvalid(error)) return refused("Refused", message);
    if (isForbidden(error)) return refused("AdmissionRefused", message);
    return refused("TemplateUnchecked", message);
  }
}

function accepted(template: SessionTemplate, pod: Pod | null): TemplateVerdict {
  const made = pod?.spec.containers.find(({ name }) => name === template.container);
  // Admission may force it (AlwaysPullImages).
  const pullsAlways = template.pullsAlways || made?.imagePullPolicy === "Always";
  return {
    accepted: true,
    final: true,
    reason: pullsAlways ? "AcceptedWithWarning" : "Accepted",
    message: pullsAlways ? ALWAYS_PULLS : "the API server takes Pods of the template",
  };
}

function refused(reason: "Refused" | "AdmissionRefused" | "TemplateUnchecked", message: string): TemplateVerdict {
  return { accepted: false, final: false, reason, message };
}
