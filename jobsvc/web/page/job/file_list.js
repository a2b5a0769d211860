/** The files of a sequence or a directory, loaded page by page when they are asked for. */

import { getJson, jobUrl } from "../api.js";
import { formatSize } from "../format.js";
import { html, useState } from "../html.js";
import { fileUrl } from "./job_model.js";

const PAGE = 200;

export function FileList({ id, output }) {
  const [list, setList] = useState({ files: [], cursor: "", message: "" });
  const loadMore = async () => {
    const query = new URLSearchParams({ output: output.name, limit: PAGE, ...(list.cursor && { cursor: list.cursor }) });
    try {
      const page = await getJson(`${jobUrl(id, "files")}?${query}`);
      setList({ files: list.files.concat(page.files), cursor: page.nextCursor, message: "" });
    } catch (error) {
      setList({ ...list, message: error.message });
    }
  };
  return html`<details class="files" onToggle=${(event) => event.currentTarget.open && !list.files.length && loadMore()}>
    <summary>Files</summary>
    <ul>${list.files.map((file) => html`<li key=${file.path}>
      <a href=${fileUrl(id, output.name, file)} download><bdi>${file.path}</bdi></a> <span class="muted">${formatSize(file.size)}</span>
    </li>`)}</ul>
    ${list.cursor && html`<button onClick=${loadMore}>More files</button>`}
    <p role="alert">${list.message}</p>
  </details>`;
}
