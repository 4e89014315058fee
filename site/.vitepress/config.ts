import { defineConfig } from "vitepress";
import { anchorOf } from "../anchors.ts";
import { sidebar } from "../navigation.ts";
import { pagesOf } from "../pages.ts";

/** The path of the site: `/`, or the path of a project's pages on a forge. */
const base = process.env.SITE_BASE || "/";
/** The repository on its forge, if known. */
const repository = process.env.SITE_REPOSITORY;

export default defineConfig({
  title: "Berth",
  description: "Kubernetes operator for self-hosted agent sandboxes",
  lang: "en",
  base,
  srcDir: ".pages",
  outDir: "dist",
  // Keep the `.html` endings: a page and a folder may have the same name, and hosts differ in which they show.
  cleanUrls: false,
  // The build fails on a dead link.
  ignoreDeadLinks: false,
  markdown: {
    // Anchors match those of forges, so that a link works on both.
    anchor: { slugify: anchorOf },
    // Names such as <environment> in prose are text. So are braces, which Vue would take for expressions.
    html: false,
    config: ({ renderer, utils }) => {
      const escaped = (text: string) => utils.escapeHtml(text).replaceAll("{{", "&#123;&#123;");
      renderer.rules.text = (tokens, index) => escaped(tokens[index]?.content ?? "");
      renderer.rules.code_inline = (tokens, index) => `<code>${escaped(tokens[index]?.content ?? "")}</code>`;
    },
  },
  themeConfig: {
    sidebar: await sidebar(await pagesOf()),
    outline: [2, 3],
    search: { provider: "local" },
    ...(repository && { socialLinks: [{ icon: "github", link: repository }] }),
  },
});
