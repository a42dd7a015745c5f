import { Nginx } from '../test/support/nginx.ts'

/**
 * nginx caching slices of what is behind it, as its documentation of the slice module shows it. Without tcp_nopush, which costs it dearly
 * here: with it the last segment of an answer made of slices waits for the client's delayed acknowledgement (40 ms). `prefix` is where a
 * blob is at <prefix>/<hex> too, as for Shoal: its requests become those of `path`, and find the same slices.
 */
export function startSlicingNginx(
  origin: string,
  alias: { readonly prefix: string; readonly path: string },
): Promise<Nginx> {
  return Nginx.start({
    http: `
  open_file_cache max=4096 inactive=1h;
  proxy_cache_path cache levels=1:2 keys_zone=blobs:16m max_size=8g inactive=1d use_temp_path=off;`,
    server: `
    access_log off;
    rewrite "^${alias.prefix}/([0-9a-f]{64})$" ${alias.path}/sha256:$1;
    location / {
      slice 1m;
      proxy_cache blobs;
      proxy_cache_key $uri$slice_range;
      proxy_cache_valid 200 206 1d;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Range $slice_range;
      add_header X-Cache $upstream_cache_status;
      proxy_pass ${origin};
    }`,
  })
}
