import { Command } from 'commander'
import { loadConfig, type Config } from '../config/index.ts'
import { initProxyAuthority, readProxyAuthority } from '../daemon.ts'
import { loadOptions, withConfigOptions, type ConfigFlags } from './config-options.ts'
import type { CommandIo } from './io.ts'

/** `shoal proxy-ca init|show`: the authority under which the forward proxy opens the tunnels named in proxy.intercept. */
export function proxyCaCommand(io: CommandIo): Command {
  return new Command('proxy-ca')
    .description("look after the forward proxy's own certificate authority")
    .addCommand(initCommand(io))
    .addCommand(showCommand(io))
}

function initCommand(io: CommandIo): Command {
  return withConfigOptions(new Command('init'))
    .description('make the authority, with a key that only its owner can read')
    .option('--force', 'replace the one that is there; clients have to trust the new one then')
    .action(async (flags: ConfigFlags & { force?: boolean }) => {
      const config = await load(io, flags)
      const { file, fingerprint } = await initProxyAuthority(config, { force: flags.force ?? false })
      io.stdout.write(`${file}\nSHA-256 ${fingerprint}\n`)
    })
}

function showCommand(io: CommandIo): Command {
  return withConfigOptions(new Command('show'))
    .description('print the certificate that clients have to trust')
    .option('--fingerprint', 'print its SHA-256 fingerprint instead')
    .action(async (flags: ConfigFlags & { fingerprint?: boolean }) => {
      const { certificate, fingerprint, file } = await readProxyAuthority(await load(io, flags))
      if (flags.fingerprint === true) {
        io.stdout.write(`${fingerprint}\n`)
        return
      }
      io.stderr.write(howToTrust(file))
      io.stdout.write(certificate)
    })
}

function howToTrust(file: string): string {
  return `# Debian, and with it containerd, whose daemon has to be restarted:
#   install -m 644 ${file} /usr/local/share/ca-certificates/shoal-proxy.crt && update-ca-certificates
# containerd, one registry only: ca = "${file}" in /etc/containerd/certs.d/<registry>/hosts.toml
# podman and skopeo, one registry only: install -D -m 644 ${file} /etc/containers/certs.d/<registry>/shoal-proxy.crt
`
}

async function load(io: CommandIo, flags: ConfigFlags): Promise<Config> {
  const { config, warnings } = await loadConfig(loadOptions(flags, io.env))
  for (const warning of warnings) io.stderr.write(`warning: ${warning}\n`)
  return config
}
