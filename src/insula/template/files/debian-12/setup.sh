# Run by a shell in the new root, once all packages are in and the files of root/ are copied.

groupadd --system qubes
useradd --create-home --uid 1000 --user-group --shell /bin/bash --groups qubes,audio,video user

# Root needs no password on the console and, by su, for members of qubes; nobody else becomes root.
passwd --delete root
sed --in-place '1i auth requisite pam_succeed_if.so use_uid quiet_success user ingroup qubes:root' /etc/pam.d/su

mkdir -p /rw /mnt/removable /usr/lib/insula /var/lib/qubes \
    /etc/qubes-rpc /etc/qubes/rpc-config /etc/qubes/protected-files.d \
    /etc/qubes-bind-dirs.d /usr/lib/qubes-bind-dirs.d
cp --archive /usr/local /usr/local.orig
# Commands of the agent volume, where people and programs look for them.
for command in qfile-agent qfile-unpacker qrexec-client-vm qrexec-fork-server qubes-desktop-run qubes-open qvm-connect-tcp \
    qvm-convert-img qvm-convert-pdf qvm-copy qvm-copy-to-vm qvm-features-request qvm-move \
    qvm-move-to-vm qvm-open-in-dvm qvm-open-in-vm qvm-run-vm qvm-sync-clock qvm-actions.sh \
    qubesdb-cmd qubesdb-list qubesdb-multiread qubesdb-read qubesdb-read-bool qubesdb-rm \
    qubesdb-watch qubesdb-write; do
    ln -s "/usr/lib/insula/bin/$command" "/usr/bin/$command"
done
ln -s /usr/lib/insula/lib /usr/lib/qubes
ln -s /dev/tcp/127.0.0.1 /etc/qubes-rpc/qubes.ConnectTCP
ln -s /dev/tcp/127.0.0.1/8082 /etc/qubes-rpc/qubes.UpdatesProxy
ln -s /run/insula/apt-proxy.conf /etc/apt/apt.conf.d/01qubes-proxy
cat /usr/share/insula/xterm.resources >> /etc/X11/app-defaults/XTerm
# No file is opened for its picture only because its directory is looked at.
sed --in-place 's/^show_thumbnail=1$/show_thumbnail=0/' /etc/xdg/libfm/libfm.conf
grep --quiet '^show_thumbnail=0$' /etc/xdg/libfm/libfm.conf

systemctl set-default multi-user.target
systemctl enable insula-base-rules.service insula-agent.service insula-x.service \
    insula-gui.service insula-booted.service insula-console.service split-gpg2-client.socket \
    split-ssh-client.socket qubes-incoming-cleanup.service
systemctl enable qubes-updates-proxy.socket qubes-updates-proxy-forwarder.socket \
    qubes-update-check.timer qubes-sync-time.timer qubes-firewall.service
# Daemons that run only where their service is switched on, once somebody installs them.
for pair in cups:cups.service cups:cups.socket cups:cups.path crond:cron.service \
    avahi:avahi-daemon.service avahi:avahi-daemon.socket exim4:exim4.service \
    firewalld:firewalld.service netfilter-persistent:netfilter-persistent.service \
    tinyproxy:tinyproxy.service network-manager:NetworkManager.service \
    modem-manager:ModemManager.service clocksync:systemd-timesyncd.service \
    tor-gateway:tor.service tor-gateway:tor@.service; do
    mkdir -p "/etc/systemd/system/${pair#*:}.d"
    printf '[Unit]\nConditionPathExists=/run/qubes-service/%s\n' "${pair%%:*}" \
        > "/etc/systemd/system/${pair#*:}.d/insula.conf"
done
# What a qube has no use for, or what would write into the template while it is only started: each
# costs time at boot, or wakes an idle qube.
systemctl mask \
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer \
    e2scrub_reap.service systemd-tmpfiles-clean.timer \
    getty.target console-getty.service systemd-ask-password-console.path \
    systemd-ask-password-wall.path \
    systemd-binfmt.service systemd-boot-system-token.service systemd-firstboot.service \
    systemd-hwdb-update.service systemd-journal-catalog-update.service \
    systemd-journal-flush.service systemd-logind.service systemd-machine-id-commit.service \
    systemd-pstore.service systemd-random-seed.service systemd-rfkill.service \
    systemd-rfkill.socket systemd-sysusers.service systemd-update-done.service \
    systemd-update-utmp.service systemd-update-utmp-runlevel.service ldconfig.service \
    dev-hugepages.mount dev-mqueue.mount sys-kernel-config.mount sys-kernel-debug.mount \
    sys-kernel-tracing.mount sys-fs-fuse-connections.mount proc-sys-fs-binfmt_misc.automount \
    modprobe@configfs.service modprobe@drm.service modprobe@efi_pstore.service \
    modprobe@fuse.service systemd-repart.service remote-fs.target
# fstab is all that is configured; each of the others is a process at every boot.
mkdir -p /etc/systemd/system-generators
for generator in /usr/lib/systemd/system-generators/*; do
    case $generator in
    */systemd-fstab-generator | */systemd-debug-generator) ;;
    *) ln -s /dev/null "/etc/systemd/system-generators/${generator##*/}" ;;
    esac
done

# The host boots the kernel that lay beside this root when it was made.
apt-mark hold $(dpkg-query --show --showformat '${db:Status-Abbrev}${Package}\n' 'linux-image-*' |
    sed --quiet 's/^ii //p')
update-initramfs -c -k all

# Nothing that two qubes must not share, and nothing of the machine that built this.
: > /etc/machine-id
: > /etc/resolv.conf
rm -f /etc/apt/apt.conf.d/99mmdebstrap /etc/dpkg/dpkg.cfg.d/99mmdebstrap /etc/apt/sources.list \
    /etc/apt/sources.list.d/0000* /var/lib/systemd/random-seed /var/lib/dbus/machine-id \
    /etc/ssh/ssh_host_* /var/log/apt/* /var/log/*.log /var/cache/debconf/*-old \
    /var/lib/dpkg/*-old /etc/*-
