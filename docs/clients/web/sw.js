// The worker: gives the page its files when there is no network, and sends what waits, also after the page was closed.
"use strict";

importScripts("queue.js");

const FILES = ["./", "app.js", "queue.js"];

self.addEventListener("install", (event) => {
  event.waitUntil(caches.open("files").then((cache) => cache.addAll(FILES)));
  self.skipWaiting();
});

self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("fetch", (event) => {
  const isOurs = FILES.some((file) => new URL(file, self.registration.scope).href === event.request.url);
  if (isOurs && event.request.method === "GET") event.respondWith(file(event.request.url));
  // Everything else, and above all /api and /auth, goes its way and is never kept.
});

// The network first, so that a new version arrives. Without cookies: the files are public, and an answer to such a
// request must not bring new ones while somebody signs in.
async function file(url) {
  const cache = await caches.open("files");
  try {
    const answer = await fetch(url, { credentials: "omit", cache: "no-cache" });
    if (answer.ok) await cache.put(url, answer.clone());
    return answer;
  } catch {
    return (await cache.match(url)) ?? Response.error();
  }
}

self.addEventListener("message", (event) => event.waitUntil(sync()));

// The browser calls when it believes to be online again; a promise that fails asks it to call once more.
self.addEventListener("sync", (event) =>
  event.waitUntil(
    sync().then((said) => {
      if (said.is === "later") throw new Error("later");
    }),
  ),
);

async function sync() {
  const said = await alone(catchUp);
  const shown = { is: said.is, after: said.after };
  for (const page of await self.clients.matchAll({ includeUncontrolled: true })) page.postMessage(shown);
  return said;
}

// In this order: tell of a sign-out; ask what our cookies are worth; learn whose they are; send what this user wrote.
async function catchUp() {
  const left = await leave();
  if (left.is !== "done") return left;
  const worth = await send("/auth/session");
  if (worth.is === "later") return worth;
  const { action } = worth.is === "done" ? await worth.answer.json() : { action: "sign_in" };
  const me = action === "sign_in" ? { is: "sign_in" } : await send("/auth/me");
  if (me.is === "later") return me;
  if (me.is !== "done") {
    await facts.set("user", null);
    return { is: "sign_in" };
  }
  const account = await me.answer.json();
  await facts.set("user", { id: account.id, name: account.username ?? account.email });
  return sendWaiting(account.id);
}

async function sendWaiting(user) {
  for (const write of await writes.all()) {
    if (write.user !== user || write.refused) continue; // somebody else's waits for them
    const said = await send("/api/orders", json(write.body, { "idempotency-key": write.key }));
    if (said.is === "done") await writes.remove(write.number);
    else if (said.is === "refused") await writes.put({ ...write, refused: said.why });
    else return said; // the order counts, so nothing overtakes; and nothing is dropped
  }
  return { is: "done" };
}
