#!/bin/sh
# As packaging/debian/postinst.
systemd-sysusers quickcloud.conf || :
systemd-tmpfiles --create quickcloud.conf || :
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
    systemctl try-restart quickcloud.service || :
fi
