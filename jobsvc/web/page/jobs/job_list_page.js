import { html } from "../html.js";

export function JobListPage({ route, account }) {
  return html`<main><h1>${route.id ?? "Jobs"}</h1><p>${account.owner}</p></main>`;
}
