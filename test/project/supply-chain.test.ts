import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { billOfMaterials, type LockedPackage, shippedPackages } from "../../tools/sbom.ts";
import { ROOT } from "./lint-gate.ts";

/** Licenses that require only attribution, so that users may build on the packages. */
const ALLOWED_LICENCES = new Set([
  "0BSD",
  "Apache-2.0",
  "BSD-2-Clause",
  "BSD-3-Clause",
  "ISC",
  "MIT",
  "PSF-2.0",
  "Unlicense",
]);

const lock = JSON.parse(await readFile(join(ROOT, "package-lock.json"), "utf8")) as {
  readonly name: string;
  readonly version: string;
  readonly lockfileVersion: number;
  readonly packages: Readonly<Record<string, LockedPackage & Record<string, unknown>>>;
};
const manifest = JSON.parse(await readFile(join(ROOT, "package.json"), "utf8")) as Record<string, unknown>;
const shipped = shippedPackages(lock);

/** Returns the package name of a path: `@b/c` for `node_modules/a/node_modules/@b/c`. */
const nameOf = (place: string) => place.slice(place.lastIndexOf("node_modules/") + "node_modules/".length);
const labelsOf = (packages: Map<string, LockedPackage>) =>
  [...packages].map(([place, { version }]) => `${nameOf(place)}@${version}`);

describe("package-lock.json", () => {
  test("matches package.json", () => {
    const root = lock.packages[""] ?? {};
    expect(lock.lockfileVersion).toBe(3);
    for (const field of ["name", "version", "license", "dependencies", "devDependencies", "optionalDependencies"]) {
      expect(root[field], field).toEqual(manifest[field]);
    }
  });

  test("has only packages from a registry: no git, no file, no link, no folder of the checkout", () => {
    for (const [place, { integrity, resolved, link, version }] of Object.entries(lock.packages)) {
      if (place === "") continue;
      expect(place).toMatch(/^node_modules\//);
      expect({ place, link, resolved }).toEqual({ place, link: undefined, resolved: undefined });
      expect(integrity, place).toMatch(/^sha512-[A-Za-z0-9+/]{86}==$/);
      expect(version, place).toMatch(/^\d+\.\d+\.\d+(-[\w.]+)?$/);
    }
  });

  test("has one hash for each package, wherever it is installed", () => {
    const hashes = new Map<string, string>();
    for (const [place, { version, integrity = "" }] of Object.entries(lock.packages)) {
      if (place === "") continue;
      const label = `${nameOf(place)}@${version}`;
      expect(hashes.get(label) ?? integrity, label).toBe(integrity);
      hashes.set(label, integrity);
    }
  });
});

describe("the shipped packages", () => {
  test("are the dependencies of package.json, and no development dependencies", () => {
    const names = [...shipped.keys()].map(nameOf);
    for (const name of Object.keys(manifest["dependencies"] as object)) expect(names).toContain(name);
    for (const name of Object.keys(manifest["devDependencies"] as object)) {
      // The types of client-node also depend on @types/node.
      if (name !== "@types/node") expect(names).not.toContain(name);
    }
  });

  test("have a permissive license each", () => {
    for (const [place, { license }] of shipped) {
      const any = String(license).replaceAll(/[()]/g, "").split(" OR ");
      expect(
        any.some((each) => ALLOWED_LICENCES.has(each)),
        `${place}: ${license}`,
      ).toBe(true);
    }
  });
});

describe("npm run sbom", () => {
  test("lists exactly the shipped packages, with license and hash", async () => {
    const bill = JSON.parse(await billOfMaterials()) as {
      readonly bomFormat: string;
      readonly metadata: { readonly component: Record<string, unknown> };
      readonly components: readonly {
        readonly name: string;
        readonly version: string;
        readonly licenses?: readonly unknown[];
        readonly hashes?: readonly { readonly alg: string; readonly content: string }[];
      }[];
    };
    expect(bill.bomFormat).toBe("CycloneDX");
    expect(bill.metadata.component).toMatchObject({ type: "application", name: lock.name, version: lock.version });
    const listed = bill.components.map(({ name, version }) => `${name}@${version}`);
    expect(new Set(listed)).toEqual(new Set(labelsOf(shipped)));
    const integrities = new Map(
      [...shipped].map(([place, { version, integrity }]) => [`${nameOf(place)}@${version}`, integrity]),
    );
    for (const { name, version, licenses, hashes } of bill.components) {
      expect(licenses, name).toHaveLength(1);
      const hex = hashes?.find(({ alg }) => alg === "SHA-512")?.content ?? "";
      expect(`sha512-${Buffer.from(hex, "hex").toString("base64")}`).toBe(integrities.get(`${name}@${version}`));
    }
  }, 120_000);
});
