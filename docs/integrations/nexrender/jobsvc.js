"use strict";

/** An action of nexrender that writes its job as a job of jobsvc: for predownload and for postrender. See README.md. */

const { execFile, spawn } = require("child_process");
const fs = require("fs");
const path = require("path");

const INTERVAL_MS = 2000; // between two records of the progress
const HEARTBEAT_MS = 60_000; // so that the job is not taken for stalled
const COPY_TIMEOUT_MS = 600_000; // for one file, in an outage: nexrender removes the film afterwards
const COPY_RETRY_MS = 2000;
const TIMEOUT_MS = 60_000; // of one command: storage that does not respond must not stop the render
const writers = new WeakMap(); // by job of nexrender
const followed = new WeakSet(); // settings whose renderers are followed: a worker has the same for all jobs

module.exports = async (job, settings, action, type) => {
  const log = (error) => settings.logger.log(`[${job.uid}] jobsvc: ${error.message}`);
  try {
    if (type !== "postrender") {
      writers.set(job, await new Writer(job, action, log).create(action));
      followRenderers(settings);
    } else if (writers.has(job)) await writers.get(job).complete(action);
    else throw new Error("the job is not written, because this action is not in predownload, or failed there");
  } catch (error) {
    log(error); // the render is more important than its record
  }
};

/** Have what aerender prints written to the logs of the jobs. */
function followRenderers(settings) {
  if (followed.has(settings)) return;
  followed.add(settings);
  const before = settings.onInstanceSpawn;
  settings.onInstanceSpawn = (renderer, job, ...rest) => {
    writers.get(job)?.follow(renderer);
    before?.(renderer, job, ...rest);
  };
}

/** Return a URL without what could be a secret, because clients see it: user, password and query. */
function publicUrl(url) {
  return url.replace(/^data:.*/is, "data:").replace(/^(?!file:)([a-z0-9+.-]+:\/\/)(?:[^/@]*@)?([^?#]*).*/is, "$1$2");
}

class Writer {
  constructor(job, { jobsRoot = process.env.JOBSVC_JOBS_ROOT, command = "jobsvc" }, log) {
    Object.assign(this, { job, jobsRoot, command, log, percent: 0, phase: "download", reportedAt: 0, isReporting: false });
    this.id = /^[A-Za-z0-9]/.test(job.uid) ? job.uid : `x${job.uid}`; // ids of jobsvc begin with a letter or digit
  }

  /** Create the job, and write what nexrender tells of it. Throws Error if that is not possible. */
  async create({ owner }) {
    const { job, jobsRoot } = this;
    if (!owner || !jobsRoot) throw new Error("the action needs `owner`, and `jobsRoot` or JOBSVC_JOBS_ROOT");
    const metadata = JSON.stringify({ composition: job.template.composition, tags: job.tags });
    const words = ["--owner", owner, "--id", this.id, "--project", publicUrl(job.template.src), "--metadata", metadata];
    await this.farm("create", "--restart", ...words);
    this.timer = setInterval(() => this.report(), HEARTBEAT_MS);
    this.timer.unref();
    this.listen("onChange", (state) => this.change(state.replace("render:", "")));
    this.listen("onRenderProgress", (percent) => Date.now() - this.reportedAt > INTERVAL_MS && this.report(percent));
    this.listen("onRenderError", (error) => (this.error ??= error.message));
    this.report();
    return this;
  }

  /** Call a function at an event of the job, beside the one that is there. */
  listen(name, listener) {
    const { job } = this;
    const before = job[name];
    job[name] = (...values) => {
      listener(values[1]);
      return before?.apply(job, values);
    };
  }

  /** Write the state of nexrender as the phase. If it is cleaning up before the job is completed, it has failed. */
  change(phase) {
    if (this.isEnded) return;
    const error = this.error?.trim().slice(0, 2000) || `nexrender failed in ${this.phase}`;
    if (phase === "cleanup") this.end("fail", "--", this.id, error);
    else this.report(this.percent, phase);
  }

  /** Write the progress, without waiting for it. While that takes long, only the newest is kept. */
  async report(percent = this.percent, phase = this.phase) {
    Object.assign(this, { percent, phase, reportedAt: Date.now(), isNewer: true });
    if (this.isReporting) return;
    this.isReporting = true;
    while (this.isNewer && !this.isEnded) {
      this.isNewer = false;
      await this.attempt("progress", "--phase", this.phase, "--", this.id, String(Math.min(this.percent, 99)));
    }
    this.isReporting = false;
  }

  /** Append what the renderer prints to the log, by a process that gets to the end even if nexrender exits at once. */
  follow(renderer) {
    const words = ["farm", "log", "--jobs-root", this.jobsRoot, this.id];
    const log = spawn(this.command, words, { stdio: ["pipe", "ignore", "ignore"] });
    this.logEnd = new Promise((resolve) => log.on("error", resolve).on("close", resolve));
    log.on("close", (code) => code !== 0 && this.log(new Error("the end of the log is missing")));
    log.stdin.on("error", () => {});
    // A pipe would stop the renderer while storage does not respond.
    for (const stream of [renderer.stdout, renderer.stderr]) stream.on("data", (data) => log.stdin.write(data));
    renderer.on("close", () => log.stdin.end());
  }

  /** Copy what was rendered, or the file `input` of an action before this, into the job's directory, and end the job. */
  async complete({ input }) {
    const { job, id } = this;
    const source = input ? path.resolve(job.workpath, input) : job.output;
    const [before, after] = path.basename(source).split(/\[#+\]/); // the frames of a sequence: result_[#####].png
    const isWanted = (name) => name === before || (after !== undefined && name.startsWith(before) && name.endsWith(after));
    try {
      const names = (await fs.promises.readdir(path.dirname(source))).filter(isWanted);
      if (names.length === 0) throw new Error(`${source} is missing`);
      for (const name of names) await this.copy(path.join(path.dirname(source), name), name);
      const output = `output/${path.basename(source).replace(/[[\]]/g, "")}`;
      await this.farm("output", "--role", "main", "--", id, "main", output);
    } catch (error) {
      this.log(error);
      return this.end("fail", "--", id, `the output was not copied: ${error.message}`.slice(0, 2000));
    }
    await this.logEnd;
    await this.end("complete", "--", id);
  }

  /** Copy a file to a temporary name, then rename it: a film that is there is complete. */
  async copy(source, name) {
    const folder = path.join(this.jobsRoot, this.id, "output");
    const temporary = path.join(folder, `.${name}.part`);
    const deadline = Date.now() + COPY_TIMEOUT_MS;
    for (let isFirst = true; ; isFirst = false) {
      try {
        await fs.promises.access(path.dirname(folder)); // no directory is created where a share is to be mounted
        await fs.promises.mkdir(folder, { recursive: true });
        await fs.promises.copyFile(source, temporary);
        return await fs.promises.rename(temporary, path.join(folder, name));
      } catch (error) {
        if (Date.now() > deadline) throw error;
        if (isFirst) this.log(new Error(`${error.message}; trying again for ten minutes`));
        await new Promise((resolve) => setTimeout(resolve, COPY_RETRY_MS));
      }
    }
  }

  /** End the job, and write no more. */
  async end(...words) {
    this.isEnded = true;
    clearInterval(this.timer);
    await this.attempt(...words);
  }

  async attempt(name, ...words) {
    try {
      await this.farm(name, ...words);
    } catch (error) {
      if (name !== "progress" || !this.isEnded) this.log(error); // progress that comes after the end is refused
    }
  }

  /**
   * Run a command of `jobsvc farm`.
   *
   * nexrender goes on meanwhile: it would take a render for stuck whose lines it cannot read. A process that waits for
   * storage may not end even when it is killed, so it is not waited for.
   */
  farm(name, ...words) {
    return new Promise((resolve, reject) => {
      const child = execFile(this.command, ["farm", name, "--jobs-root", this.jobsRoot, ...words], (error, _, stderr) => {
        clearTimeout(timer);
        if (error) reject(new Error(stderr.trim() || error.message));
        else resolve();
      });
      const timer = setTimeout(() => {
        reject(new Error(`jobsvc farm ${name} has not ended within ${TIMEOUT_MS / 1000} s`));
        child.kill("SIGKILL");
        for (const handle of [child, child.stdin, child.stdout, child.stderr]) handle.unref(); // nexrender may end
      }, TIMEOUT_MS);
    });
  }
}
