package container

import (
	"slices"

	"github.com/sampan-project/sampan/core/image"
)

// ImageUsers returns the containers of an image and those that have it mounted, for image.Options.InUse.
func (m *Manager) ImageUsers(imageID string) (users []image.User) {
	for _, c := range m.all() {
		rec, st := c.snapshot()
		mounted := slices.ContainsFunc(rec.Mounts, func(p mountPoint) bool { return p.Type == "image" && p.Image.String() == imageID })
		if (mounted || rec.ImageID.String() == imageID) && !c.isRemoved() {
			users = append(users, image.User{ContainerID: c.id, Running: st.live() || st.Phase == restarting})
		}
	}
	return users
}

// VolumeUsers returns the containers that name the volume, for volume.Options.InUse.
func (m *Manager) VolumeUsers(name string) (ids []string) {
	for _, c := range m.all() {
		rec, _ := c.snapshot()
		if !c.isRemoved() && slices.ContainsFunc(rec.Mounts, func(p mountPoint) bool { return p.Type == "volume" && p.Name == name }) {
			ids = append(ids, c.id)
		}
	}
	return ids
}
